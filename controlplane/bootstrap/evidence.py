"""Exports and their verification, as the command line asks for them."""

from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from controlplane.bootstrap.gpu_pools import gpu_tools, load_pools
from controlplane.bootstrap.hub import VERSION
from controlplane.bootstrap.metadata import open_metadata
from controlplane.bootstrap.offline import parse_instant
from controlplane.bootstrap.places import SIGNING_KEY, SPANS_FILE
from controlplane.bootstrap.price_books import load_book
from controlplane.bootstrap.system import SystemClock, UlidIds, secret_file
from controlplane.core.calendar import Period, Window
from controlplane.core.errors import InvalidInputError
from controlplane.exports.manifest import MANIFEST_NAME, SIGNATURE_NAME, Manifest
from controlplane.exports.sharing import SharedRule, read_shares
from controlplane.exports.verify import Verification, verify_export
from controlplane.pipelines.export import write_export
from controlplane.pipelines.export_request import ExportRequest, ExportSources, check_request
from controlplane.pipelines.signed_directory import Stamp
from controlplane.pricing.currency import USD
from controlplane.settings import Settings
from controlplane.store.metadata.currencies import ExchangeRateRepository
from controlplane.store.metadata.finance import FinanceRepository
from controlplane.store.metadata.gpu_pools import GpuPoolRepository
from controlplane.store.spans.duckdb_store import DuckDbSpanStore

MAX_FILE_BYTES = 4 * 2**30


class ExportOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for, as text from the command line."""

    tenant: str
    start: str
    end: str
    kind: str
    file_format: str
    charge_period: Period = Period.DAY
    currency: str = USD
    by: str = "team"
    owner: str | None = None
    shared_rule: SharedRule = SharedRule.NONE
    shares: tuple[str, ...] = ()
    """`owner=weight`, each."""
    idle_rule: SharedRule = SharedRule.NONE
    idle_shares: tuple[str, ...] = ()


def window_of(order: ExportOrder) -> Window:
    """Read the window of an order.

    Raises:
        InvalidInputError: an end that is none.
    """
    window = Window(parse_instant(order.start, "start"), parse_instant(order.end, "end"))
    if window.start >= window.end:
        raise InvalidInputError("end", "is not after start", "Windows are half-open")
    return window


def export(settings: Settings, out: Path, order: ExportOrder) -> Manifest:
    """Write an export from the span store's file; the hub must not be running on it.

    Raises:
        InvalidInputError: a wrong option, or `out` exists.
        StoreUnavailableError: the hub owns the file: `export_remotely` asks it.
    """
    request = ExportRequest(
        tenant=order.tenant,
        window=window_of(order),
        kind=order.kind,
        file_format=order.file_format,
        charge_period=order.charge_period,
        currency=order.currency,
        by=order.by,
        owner=order.owner,
        shared_rule=order.shared_rule,
        shares=read_shares(order.shares),
        idle_rule=order.idle_rule,
        idle_shares=read_shares(order.idle_shares),
        zone=settings.zone,
        calendar=settings.calendar,
    )
    check_request(request)
    book, engine = load_book(settings), open_metadata(settings)
    store = DuckDbSpanStore(settings.data_dir / SPANS_FILE)
    try:
        return write_export(
            ExportSources(
                store,
                book,
                ExchangeRateRepository(engine),
                gpu_tools(store, load_pools(settings.gpu_pools), GpuPoolRepository(engine)),
                FinanceRepository(engine),
            ),
            request,
            out.absolute(),
            key=Ed25519PrivateKey.from_private_bytes(
                secret_file(settings.secrets_dir / SIGNING_KEY)
            ),
            stamp=Stamp(
                export_id=UlidIds().new("exp"),
                created_at=SystemClock().now(),
                software=f"inference-controlplane {VERSION}",
            ),
        )
    finally:
        store.close()
        engine.dispose()


def verify(directory: Path, *, public_key: Path | None) -> Verification:
    """Read an export's files and check them; nothing but the directory is needed.

    Raises:
        InvalidInputError: no directory of an export, or a file too large to be one of ours.
    """
    if not directory.is_dir():
        raise InvalidInputError("directory", f"{directory} is not one", "Name an export")
    if not (directory / MANIFEST_NAME).exists() and not (directory / SIGNATURE_NAME).exists():
        fix = "Name the directory that `controlplane export` wrote"
        raise InvalidInputError("directory", f"{directory} holds no {MANIFEST_NAME}", fix)
    files: dict[str, bytes] = {}
    for path in sorted(directory.iterdir()):
        if not path.is_file():
            files[f"{path.name}/"] = b""  # named by no manifest: an extra file
            continue
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InvalidInputError("directory", f"{path.name} is above {MAX_FILE_BYTES} bytes")
        files[path.name] = path.read_bytes()
    return verify_export(files, trusted_key=public_key.read_bytes() if public_key else None)
