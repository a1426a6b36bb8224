"""Which spans tell of a registered gateway: a client's by the address it called, a proxy's by name.

Where neither ids nor traces propagate, a client's and a gateway's report of one call have nothing
in common but when and how much. That counts as evidence only between a gateway that somebody has
registered and the clients that say they called it (`gateway_pairs`). What is decided here is stored
with the span, so that a later registration changes nothing that was counted.
"""

from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

import msgspec
import pyarrow as pa

from controlplane.ingest.columns import Column, contiguous, kernels
from controlplane.signals.schema import NORMALIZED_SCHEMA
from controlplane.signals.vocabulary import KeyRole, Layer

_HOST: Final = "server.address"
_PORT: Final = "server.port"
_URLS: Final = ("gen_ai.openai.api_base", "url.full", "http.url")
ADDRESS_KEYS: Final = frozenset({_HOST, _PORT, *_URLS})
"""Attributes in which a client says what it called."""

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_COLUMN: Final = "gateway"


class Gateway(msgspec.Struct, frozen=True):
    """One address of a gateway, as its clients call it."""

    address: str
    """`host`, `host:port` or a URL."""
    service: str = ""
    """`service.name` of the gateway's own spans. Gateways that give none count as one."""


class _Place(msgspec.Struct, frozen=True):
    host: str
    port: int | None
    """None where it is not said."""


def mark_gateways(spans: pa.Table, gateways: Sequence[Gateway]) -> pa.Table:
    """Fill the column `gateway` of a NORMALIZED_SCHEMA table: the service, NULL for all others."""
    if not gateways or not spans.num_rows:
        return spans
    proxies = kernels.or_(
        kernels.equal(spans.column("layer"), Layer.PROXY.value),
        kernels.equal(spans.column("key_role"), KeyRole.PROXY.value),
    )
    clients = kernels.equal(spans.column("layer"), Layer.CLIENT.value)
    called = kernels.if_else(clients, _called(spans, gateways), pa.scalar(None, pa.string()))
    marks = kernels.if_else(proxies, _named(spans, gateways), called)
    at = spans.schema.get_field_index(_COLUMN)
    return spans.set_column(at, NORMALIZED_SCHEMA.field(_COLUMN), marks)


def _named(spans: pa.Table, gateways: Sequence[Gateway]) -> Column:
    """Name the gateway that made a span, by its service."""
    named = {one.service for one in gateways if one.service}
    others = "" if any(not one.service for one in gateways) else None
    coded = contiguous(spans.column("service_name")).dictionary_encode()
    names = [name if name in named else others for name in coded.dictionary.to_pylist()]
    return pa.array(names, pa.string()).take(coded.indices)


def _called(spans: pa.Table, gateways: Sequence[Gateway]) -> Column:
    """Name the gateway that a span called, by any address that it tells."""
    places = [(_place(one.address), one.service) for one in gateways]
    attributes = contiguous(spans.column("attributes"))
    hosts, ports = (_texts(attributes, key) for key in (_HOST, _PORT))
    whole = kernels.binary_join_element_wise(hosts, ports, ":", null_handling="emit_null")
    said = [_gateways_of(kernels.coalesce(whole, hosts), places)]
    said += [_gateways_of(_texts(attributes, key), places) for key in _URLS]
    return kernels.coalesce(*said)


def _texts(attributes: Column, key: str) -> Column:
    return kernels.map_lookup(attributes, key, "first")


def _gateways_of(addresses: Column, places: Sequence[tuple[_Place, str]]) -> Column:
    coded = contiguous(addresses).cast(pa.string()).dictionary_encode()
    found = [_gateway_at(_place(text), places) for text in coded.dictionary.to_pylist()]
    return pa.array(found, pa.string()).take(coded.indices)


def _gateway_at(called: _Place, places: Sequence[tuple[_Place, str]]) -> str | None:
    return next((service for place, service in places if _is_at(called, place)), None)


def _is_at(called: _Place, registered: _Place) -> bool:
    if not called.host or called.host != registered.host:
        return False
    if called.port is None or registered.port is None:
        return registered.port in {None, *_DEFAULT_PORTS.values()}  # left out where it is usual
    return called.port == registered.port


def _place(address: str) -> _Place:
    text = address.strip().lower()
    if "://" not in text:
        text = f"//{text}"
    try:
        parts = urlsplit(text)
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:  # no address, whatever else it is
        return _Place("", None)
    return _Place(parts.hostname or "", port)
