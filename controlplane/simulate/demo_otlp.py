"""Writes demonstration spans as OTLP/protobuf bytes, cheaply.

The message tree is fixed, so tags are constants and strings repeat: 200,000 spans cost seconds
where protobuf objects cost minutes. A test reads the bytes back with the official classes.
Field numbers: opentelemetry-proto v1, `trace.proto`, `common.proto`, `resource.proto`.
"""

import struct
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Final, NamedTuple

from controlplane.simulate.demo_calls import Call
from controlplane.simulate.demo_spans import NO_PARENT, AttributeValue, Report

_GOLDEN: Final = 0x9E3779B97F4A7C15  # spreads neighbouring numbers over 64 bits (Knuth, 2^64/phi)
_MASK: Final = 2**64 - 1
_STATUS_OK: Final = b"\x7a\x00"  # field 15, empty Status: unset
_STATUS_ERROR: Final = b"\x7a\x02\x18\x02"  # field 15 { code: 2 }


class EncodedSpan(NamedTuple):
    """A span's bytes with what decides the message it travels in."""

    sender: str
    tenant: str
    service: str
    scope: str
    body: bytes


def encode_call(call: Call, reports: Iterable[Report]) -> list[EncodedSpan]:
    """Write each report of one call; all share a trace."""
    trace = struct.pack(">QQ", call.nonce, call.nonce * _GOLDEN & _MASK)
    start = _unix_nano(call.start)
    return [
        EncodedSpan(
            report.sender,
            call.team.tenant,
            report.service,
            report.scope,
            _span(
                report, trace=trace, span=_span_id(call, i), parent=_parent(call, report), at=start
            ),
        )
        for i, report in enumerate(reports)
    ]


def encode_request(spans: Iterable[EncodedSpan], *, tenant_attribute: str) -> bytes:
    """Join spans into one ExportTraceServiceRequest, grouped by resource and scope."""
    tree: dict[tuple[str, str], dict[str, list[bytes]]] = {}
    for span in spans:
        scopes = tree.setdefault((span.tenant, span.service), {})
        scopes.setdefault(span.scope, []).append(_nested(0x12, span.body))
    return b"".join(
        _nested(
            0x0A,
            _nested(0x0A, _resource(tenant, service, tenant_attribute))
            + b"".join(
                _nested(0x12, _nested(0x0A, _nested(0x0A, scope.encode())) + b"".join(bodies))
                for scope, bodies in scopes.items()
            ),
        )
        for (tenant, service), scopes in tree.items()
    )


def resource_attributes(tenant: str, service: str, tenant_attribute: str) -> dict[str, str]:
    """Answer what every resource of the demonstration says about itself."""
    return {
        "service.name": service,
        "deployment.environment.name": "production",
        "cloud.region": "eu-west-1",
        tenant_attribute: tenant,
    }


@lru_cache(maxsize=256)
def _resource(tenant: str, service: str, tenant_attribute: str) -> bytes:
    said = resource_attributes(tenant, service, tenant_attribute)
    return b"".join(_nested(0x0A, _text(key, value)) for key, value in said.items())


def _span_id(call: Call, index: int) -> bytes:
    return struct.pack(">Q", (call.nonce + index + 1) * _GOLDEN & _MASK or 1)


def _parent(call: Call, report: Report) -> bytes:
    return b"" if report.parent == NO_PARENT else b"\x22\x08" + _span_id(call, report.parent)


def _span(report: Report, *, trace: bytes, span: bytes, parent: bytes, at: int) -> bytes:
    start = at + int(report.offset_seconds * 1e6) * 1000
    end = start + int(report.duration_seconds * 1e6) * 1000
    return b"".join(
        (
            b"\x0a\x10", trace, b"\x12\x08", span, parent,
            _nested(0x2A, report.name.encode()),
            b"\x30", bytes((report.kind,)),
            struct.pack("<BQBQ", 0x39, start, 0x41, end),
            _attributes(report.attributes),
            _STATUS_ERROR if report.failed else _STATUS_OK,
        )
    )  # fmt: skip


def _attributes(attributes: Mapping[str, AttributeValue]) -> bytes:
    return b"".join([_nested(0x4A, _key_value(key, value)) for key, value in attributes.items()])


def _key_value(key: str, value: AttributeValue) -> bytes:
    if isinstance(value, str):
        return _text(key, value)
    if isinstance(value, bool):
        return _key(key) + (b"\x12\x02\x10\x01" if value else b"\x12\x02\x10\x00")
    if isinstance(value, int):
        return _key(key) + _nested(0x12, b"\x18" + _varint(value))
    return _key(key) + b"\x12\x09\x21" + struct.pack("<d", value)


@lru_cache(maxsize=8192)
def _text(key: str, value: str) -> bytes:
    return _key(key) + _nested(0x12, _nested(0x0A, value.encode()))


@lru_cache(maxsize=512)
def _key(key: str) -> bytes:
    return _nested(0x0A, key.encode())


def _nested(tag: int, body: bytes) -> bytes:
    size = len(body)
    if size < 0x80:  # noqa: PLR2004 - one varint byte
        return bytes((tag, size)) + body
    return bytes((tag,)) + _varint(size) + body


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:  # noqa: PLR2004 - seven bits a byte
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _unix_nano(moment: datetime) -> int:
    return round(moment.timestamp() * 1e6) * 1000
