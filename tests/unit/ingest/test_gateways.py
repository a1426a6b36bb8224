"""Which spans tell of a registered gateway."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from controlplane.ingest.gateways import ADDRESS_KEYS, Gateway, mark_gateways
from controlplane.ingest.limits import Limits
from controlplane.ingest.normalize import normalize
from controlplane.ingest.otlp import decode_requests
from controlplane.ingest.ports import Payload
from controlplane.signals.schema import NORMALIZED_SCHEMA
from controlplane.signals.sender import KEYLESS_SENDER

CORPUS = Path(__file__).parents[2] / "corpus"
NAMED = Gateway("litellm.internal:4000", "gate")

Rows = Callable[..., pa.Table]


def marked(gateways: list[Gateway], rows: Rows, **said: Any) -> str | None:
    spans = rows(said).select(NORMALIZED_SCHEMA.names)
    return str(found) if (found := _column(spans, gateways)[0]) is not None else None


def _column(spans: pa.Table, gateways: list[Gateway]) -> list[Any]:
    table = mark_gateways(spans, gateways)
    assert NORMALIZED_SCHEMA == table.schema
    return table.column("gateway").to_pylist()


CALLED = [
    ({"server.address": "litellm.internal", "server.port": "4000"}, "gate"),
    ({"server.address": "LiteLLM.internal", "server.port": "4000"}, "gate"),
    ({"server.address": "litellm.internal", "server.port": "4001"}, None),
    ({"server.address": "litellm.internal"}, None),
    ({"server.address": "api.openai.com", "server.port": "443"}, None),
    ({"gen_ai.openai.api_base": "http://litellm.internal:4000/v1/"}, "gate"),
    ({"url.full": "http://litellm.internal:4000/v1/chat/completions"}, "gate"),
    ({"url.full": "http://[broken"}, None),
    ({"server.port": "4000"}, None),
    ({}, None),
]


@pytest.mark.parametrize(("said", "expected"), CALLED)
def test_a_client_says_which_gateway_it_called(
    said: dict[str, str], expected: str | None, span_rows: Rows
) -> None:
    found = marked([Gateway("other"), NAMED], span_rows, attributes=list(said.items()))
    assert expected == found


REGISTERED = [
    ("gw", {"server.address": "gw", "server.port": "4000"}, True),
    ("gw", {"server.address": "gw"}, True),
    ("https://gw", {"server.address": "gw"}, True),
    ("https://gw/v1", {"server.address": "gw", "server.port": "443"}, True),
    ("https://gw", {"server.address": "gw", "server.port": "4000"}, False),
    ("gw:443", {"url.full": "https://gw/v1/messages"}, True),
    ("[::1]:4000", {"url.full": "http://[::1]:4000/v1"}, True),
    ("", {"server.address": ""}, False),
]


@pytest.mark.parametrize(("address", "said", "is_it"), REGISTERED)
def test_a_port_that_is_not_said_is_the_usual_one(
    address: str,
    said: dict[str, str],
    is_it: bool,  # noqa: FBT001 - a parameter
    span_rows: Rows,
) -> None:
    found = marked([Gateway(address, "gate")], span_rows, attributes=list(said.items()))
    assert is_it == (found == "gate")


def test_a_gateway_is_known_by_its_service_or_as_the_one_without(span_rows: Rows) -> None:
    proxy = {"layer": "proxy", "service_name": "gate"}
    other = {**proxy, "service_name": "another"}
    assert "gate" == marked([NAMED], span_rows, **proxy)
    assert None is marked([NAMED], span_rows, **other)
    assert "" == marked([NAMED, Gateway("gw")], span_rows, **other)
    assert "gate" == marked([NAMED], span_rows, **{**proxy, "layer": "client", "key_role": "proxy"})
    assert None is marked([NAMED], span_rows, **{**proxy, "layer": "engine"})
    assert None is marked([], span_rows, **proxy)


@pytest.mark.parametrize("producer", ["otel-openai-v2", "openlit", "traceloop-openai"])
def test_recorded_clients_name_what_they_called(producer: str) -> None:
    decoded = decode_requests(
        [Payload((CORPUS / producer / "chat.pb").read_bytes())],
        senders=[KEYLESS_SENDER],
        received_at=[datetime(2026, 11, 20, tzinfo=UTC)],
        limits=Limits(),
    )
    spans = normalize(decoded, limits=Limits(needed_attributes=ADDRESS_KEYS))
    assert {None} == set(_column(spans, [Gateway("api.example.com", "gate")]))
    assert "gate" in _column(spans, [Gateway("127.0.0.1", "gate")])
