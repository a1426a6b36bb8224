"""Makes bytes that a strict parser refuses readable, so that a call is not lost to its prompt."""

from controlplane.ingest import otlp_pb2 as pb


def repair_span(body: bytes) -> bytes:
    """Replace what is not UTF-8 in a span's texts by U+FFFD.

    Raises:
        DecodeError: not a span at all.
    """
    span = pb.LooseSpan.FromString(body)
    span.name = _as_utf8(span.name)
    for event in span.events:
        event.name = _as_utf8(event.name)
    if span.HasField("status"):
        span.status.message = _as_utf8(span.status.message)
    _repair_pairs(span)
    return bytes(span.SerializeToString())


def repair_resource(body: bytes) -> bytes:
    """Replace what is not UTF-8 in a resource's attributes by U+FFFD.

    Raises:
        DecodeError: not a resource at all.
    """
    resource = pb.LooseResource.FromString(body)
    _repair_pairs(resource)
    return bytes(resource.SerializeToString())


def _repair_pairs(holder: "pb.LooseSpan | pb.LooseResource") -> None:
    for pair in holder.attributes:
        pair.key = _as_utf8(pair.key)
        if pair.value.WhichOneof("value") == "string_value":
            pair.value.string_value = _as_utf8(pair.value.string_value)


def _as_utf8(text: bytes) -> bytes:
    return text.decode("utf-8", "replace").encode()
