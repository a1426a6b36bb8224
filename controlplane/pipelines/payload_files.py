"""What a file of payloads holds: one request of either encoding, or JSON requests one after another."""

from typing import Final

import msgspec

from controlplane.ingest.ports import Payload, Signal

_BOM: Final = b"\xef\xbb\xbf"


def requests_of(body: bytes, signal: Signal = "traces") -> list[Payload]:
    """Answer the requests of a file; what is none of them is one, for its reader to refuse.

    Protobuf requests after one another are one request. JSON requests are a line each, as the
    OpenTelemetry Collector's file exporter writes them, or the items of an array.
    """
    text = body.removeprefix(_BOM).strip()
    if text[:1] == b"[":
        try:
            return [Payload(bytes(one), "json", signal) for one in _ARRAY.decode(text)]
        except msgspec.DecodeError:
            return [Payload(body, "json", signal)]
    if text[:1] != b"{":
        return [Payload(body, "protobuf", signal)]
    lines = [line for line in text.splitlines() if line.strip()]
    if all(line.startswith(b"{") and line.rstrip().endswith(b"}") for line in lines):
        return [Payload(line, "json", signal) for line in lines]
    return [Payload(text, "json", signal)]


_ARRAY: Final = msgspec.json.Decoder(list[msgspec.Raw])
