"""`controlplane reconcile --server`: bills go to a running system in one archive; the report is its own."""

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

from controlplane.api.app import MAX_BODY_BYTES
from controlplane.bootstrap.reconciling import ARCHIVE, ReconcileOrder
from controlplane.bootstrap.remote import RemoteApi
from controlplane.core.errors import InvalidInputError, LimitExceededError
from controlplane.pipelines.reconcile_report import ReconciliationReport


def reconcile_remotely(
    api: RemoteApi, files: Sequence[Path], order: ReconcileOrder
) -> ReconciliationReport:
    """Have bills compared by the system that has the ledger; several are one bill, as at rest.

    Raises:
        InvalidInputError: a wrong option, or a file that is no bill.
        LimitExceededError: packed they are more than a request may bring.
    """
    said = {
        "provider": order.provider,
        "name": ARCHIVE,
        "format": order.source,
        "map": order.mapping,
        "zone": order.zone,
        "tolerance_percent": order.tolerance_percent,
        "tolerance_usd": order.tolerance_usd,
        "record": "yes" if order.record else "no",
    }
    return api.send_as(
        "/reconciliations",
        _packed(files),
        ReconciliationReport,
        tenant=order.tenants,
        **{name: value for name, value in said.items() if value},
    )


def _packed(files: Sequence[Path]) -> bytes:
    """Pack bills under a folder each: two may have one name."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, path in enumerate(files):
            if not path.is_file():
                raise InvalidInputError("file", f"{path} is not a file", "Name a bill")
            archive.write(path, f"{number}/{path.name}")
            if packed.tell() > MAX_BODY_BYTES:
                raise LimitExceededError(
                    "bytes of packed bills",
                    MAX_BODY_BYTES,
                    hint="Stop the hub and reconcile without --server",
                )
    return packed.getvalue()
