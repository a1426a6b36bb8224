"""Question → parts of its kind → files → signed manifest: an export, whole or not at all."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from controlplane.exports import focus_schema
from controlplane.exports.manifest import Manifest
from controlplane.pipelines.export_calls import call_parts
from controlplane.pipelines.export_focus import focus_parts
from controlplane.pipelines.export_request import ExportRequest, ExportSources, check_request
from controlplane.pipelines.export_statements import statement_parts
from controlplane.pipelines.signed_directory import About, Part, Stamp, write_signed

_PARTS: Final[dict[str, Callable[[ExportSources, ExportRequest, Stamp], Iterator[Part]]]] = {
    "traces": call_parts,
    "calls": call_parts,
    "focus": focus_parts,
    "statement": statement_parts,
}


def write_export(
    sources: ExportSources,
    request: ExportRequest,
    out: Path,
    *,
    key: Ed25519PrivateKey,
    stamp: Stamp,
) -> Manifest:
    """Write what is asked for to the new directory `out` and return the signed manifest.

    Raises:
        InvalidInputError: an unknown kind or format, or `out` exists.
        LimitExceededError: more charges than can be held at once.
        StoreUnavailableError: nothing was written.
    """
    check_request(request)
    reader = sources.reader
    about = About(
        kind=request.kind,
        tenant=request.tenant,
        window=request.window,
        data_through=reader.data_through((request.tenant,)),
        csv_escaped=request.file_format == "csv" or request.kind == "statement",
        spec=focus_schema.SPEC if request.kind == "focus" else "",
    )
    parts = _PARTS[request.kind](sources, request, stamp)
    return write_signed(out, parts, about, key=key, stamp=stamp)
