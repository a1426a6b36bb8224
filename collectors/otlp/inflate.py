"""Decompression that stops at a bound instead of finding out afterwards.

Ten gigabytes of zeros compress to 329 kB of zstd; that killed collectors (GHSA-c74f-6mfw-mm4v).
"""

import zlib
from collections.abc import Iterator
from typing import Final

import zstandard

from controlplane.core.errors import LimitExceededError, PayloadError
from controlplane.ingest.limits import Limits

ENCODINGS: Final = ("identity", "gzip", "zstd")
"""Names in Content-Encoding; gRPC's own compression adds `deflate`."""
_STEP_BYTES: Final = 1024 * 1024
_ZSTD_SLICE_BYTES: Final = 256
"""Input per step. A 4-byte run-length block becomes 128 KiB, so a step yields at most 8 MiB."""
_ZSTD_MAX_WINDOW_BYTES: Final = 8 * 1024 * 1024
_MAX_RATIO: Final = 300
"""Telemetry compresses 5 to 60 times; only padding compresses more."""
_RATIO_FLOOR_BYTES: Final = 4 * 1024 * 1024
_WINDOW_BITS: Final = {"gzip": 31, "deflate": 15}


def inflate(body: bytes, *, encoding: str, limits: Limits) -> bytes:
    """Return the body as it was before `encoding`, one of ENCODINGS or `deflate`.

    Raises:
        LimitExceededError: more than `max_decompressed_bytes`, or padding.
        PayloadError: not the encoding it claims, or cut short.
    """
    if encoding == "identity":
        return _bounded(iter((body,)), len(body), limits)
    parts = _unzstd(body) if encoding == "zstd" else _unzip(body, encoding)
    return _bounded(parts, len(body), limits)


def _bounded(parts: Iterator[bytes], compressed_bytes: int, limits: Limits) -> bytes:
    kept: list[bytes] = []
    size = 0
    for part in parts:
        size += len(part)
        if size > limits.max_decompressed_bytes:
            raise LimitExceededError("max_decompressed_bytes", limits.max_decompressed_bytes)
        if size > max(_RATIO_FLOOR_BYTES, _MAX_RATIO * compressed_bytes):
            raise LimitExceededError("max_compression_ratio", _MAX_RATIO)
        kept.append(part)
    return kept[0] if len(kept) == 1 else b"".join(kept)


def _unzip(body: bytes, encoding: str) -> Iterator[bytes]:
    while body:
        member = zlib.decompressobj(_WINDOW_BITS[encoding])
        try:
            while not member.eof:
                part = member.decompress(body, _STEP_BYTES)
                body = member.unconsumed_tail
                if not (part or body or member.eof):
                    raise _malformed(encoding, "it ends in the middle")
                yield part
        except zlib.error as error:
            raise _malformed(encoding, f"it is damaged or not {encoding}") from error
        body = member.unused_data


def _unzstd(body: bytes) -> Iterator[bytes]:
    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_MAX_WINDOW_BYTES)
    frame = decompressor.decompressobj()
    fed = 0
    try:
        while fed < len(body):
            if frame.eof:
                frame = decompressor.decompressobj()
            taken = body[fed : fed + _ZSTD_SLICE_BYTES]
            yield frame.decompress(taken)
            fed += len(taken) - len(frame.unused_data)
    except zstandard.ZstdError as error:
        raise _malformed("zstd", "it is damaged or not zstd") from error
    if body and not frame.eof:
        raise _malformed("zstd", "it ends in the middle")


def _malformed(encoding: str, problem: str) -> PayloadError:
    return PayloadError(
        f"malformed_{encoding}", problem, f"Compress with {encoding} or drop Content-Encoding"
    )
