"""`export` and `reconcile` of a running system, as the commands ask its API for them."""

import io
import json
import random
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typing_extensions import override

from controlplane.auth.roles import ROLE_SCOPES, Role
from controlplane.bootstrap import remote_exports
from controlplane.bootstrap.evidence import ExportOrder, verify
from controlplane.bootstrap.reconciling import MAX_BILLS, ReconcileOrder
from controlplane.bootstrap.remote import RefusedRemotelyError, RemoteApi
from controlplane.bootstrap.remote_bills import reconcile_remotely
from controlplane.bootstrap.remote_exports import export_remotely
from controlplane.core.errors import InvalidInputError, LimitExceededError, UnavailableError

URL = "/api/v1/reconciliations"
# The fixture's calls of the 20th in UTC cost 7.500000005 (test_reconciliations.py).
DAY = {"start": "2026-11-20T00:00:00Z", "end": "2026-11-21T00:00:00Z"}
TABLE = "Date,SKU,Amount\n2026-11-20,gpt-4o,{amount}\n"
ORDER = ReconcileOrder(
    provider="openai", tenants=("acme",), source=None, mapping="day=Date,model=SKU,cost=Amount",
    zone="UTC", tolerance_percent="0.5", tolerance_usd="1", record=False,
)  # fmt: skip


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """Where the command writes; the server has the directory above."""
    made = tmp_path / "here"
    made.mkdir()
    return made


@pytest.fixture
def remote(api: Any, keys: Any) -> Iterator[RemoteApi]:
    key = keys.add("acme", scopes=ROLE_SCOPES[Role.FINANCE])
    with RemoteApi(api.url, key) as client:
        yield client


def order(**said: object) -> ExportOrder:
    plain = {"tenant": "acme", **DAY, "kind": "calls", "file_format": "csv"}
    return msgspec.convert({**plain, **said}, ExportOrder)


@pytest.mark.parametrize(
    "said",
    [{}, {"kind": "focus", "file_format": "parquet", "charge_period": "hour"},
     {"kind": "statement", "shared_rule": "fixed", "shares": ("a=1", "b=2")}],
)  # fmt: skip
def test_an_export_is_brought_here_whole(
    remote: RemoteApi, here: Path, said: dict[str, object]
) -> None:
    out = here / "out"
    manifest = export_remotely(remote, out, order(**said))
    found = verify(out, public_key=None)
    assert (True, manifest.rows, manifest.total_nusd) == (found.ok, found.rows, found.total_nusd)
    assert [out] == list(here.iterdir())
    if not said:
        assert 7_500_000_005 == manifest.total_nusd
        assert DAY == {
            name: f"{getattr(manifest, name):%Y-%m-%dT%H:%M:%SZ}" for name in ("start", "end")
        }


def test_what_can_not_be_exported_leaves_nothing(remote: RemoteApi, here: Path) -> None:
    """A wrong order, one that fails while it runs, another tenant's, a place that is taken."""
    out = here / "out"
    with pytest.raises(InvalidInputError, match="format"):
        export_remotely(remote, out, order(file_format="xlsx"))
    with pytest.raises(InvalidInputError, match="half-open"):
        export_remotely(remote, out, order(end=DAY["start"]))
    with pytest.raises(RefusedRemotelyError, match="CHF"):
        export_remotely(remote, out, order(kind="focus", currency="CHF"))
    with pytest.raises(RefusedRemotelyError):
        export_remotely(remote, out, order(tenant="globex"))
    with pytest.raises(InvalidInputError, match="no directory"):
        export_remotely(remote, here / "none" / "out", order())
    assert [] == list(here.iterdir())
    out.mkdir()
    with pytest.raises(InvalidInputError, match="exists"):
        export_remotely(remote, out, order())


class Torn(RemoteApi):
    """The last byte of the data is lost on the way, or all of a file."""

    names: tuple[str, ...] = ()

    @override
    def fetch(self, path: str, to: Path) -> None:
        super().fetch(path, to)
        if to.suffix == ".csv":
            to.write_bytes(to.read_bytes()[:-1])


class Nowhere(RemoteApi):
    """Names a file elsewhere."""

    @override
    def get_as(self, path: str, kind: type[Any]) -> Any:
        found = super().get_as(path, kind)
        return msgspec.structs.replace(found, files=("../../x",)) if found.files else found


@pytest.mark.parametrize(("client", "told"), [(Torn, "damaged"), (Nowhere, "names a file")])
def test_files_that_came_otherwise_are_not_kept(
    api: Any, keys: Any, here: Path, client: type[RemoteApi], told: str
) -> None:
    key = keys.add("acme", scopes=ROLE_SCOPES[Role.AUDITOR])
    with client(api.url, key) as torn, pytest.raises(UnavailableError, match=told):
        export_remotely(torn, here / "out", order())
    assert [] == list(here.iterdir())


def test_an_export_that_is_never_done_is_named(
    remote: RemoteApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_exports, "MOST_SECONDS", 0.0)
    with pytest.raises(UnavailableError, match=r"GET /api/v1/exports/export_"):
        export_remotely(remote, tmp_path / "out", order())


def test_several_files_are_one_bill(remote: RemoteApi, tmp_path: Path) -> None:
    """Two of one name: 3 and 5.5 are almost a dollar more than the ledger, which is within a dollar and not within none."""
    paths = [tmp_path / str(n) / "bill.csv" for n in range(2)]
    for path, amount in zip(paths, ("3", "5.5"), strict=True):
        path.parent.mkdir()
        path.write_text(TABLE.format(amount=amount))
    report = reconcile_remotely(remote, paths, ORDER)
    assert ("8.5", "7.500000005") == (report.billed_usd, report.ledger_usd)
    assert ["bill.csv", "bill.csv"] == [file.name for file in report.files]
    assert ("1", "0.005", True) == (
        report.tolerance_usd, f"{report.tolerance_ratio}", report.within_tolerance,
    )  # fmt: skip
    strict = msgspec.structs.replace(
        ORDER, tolerance_percent="0", tolerance_usd="0", record=True, tenants=()
    )
    assert not reconcile_remotely(remote, paths, strict).within_tolerance
    (kept,) = remote.get("/reconciliations")["rows"]
    assert "8.5" == kept["billed_usd"]


def test_bills_that_can_not_be_sent_are_told(remote: RemoteApi, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="is not a file"):
        reconcile_remotely(remote, [tmp_path / "none.csv"], ORDER)
    large = tmp_path / "large.csv"
    large.write_bytes(random.Random(1).randbytes(5 * 2**20))
    with pytest.raises(LimitExceededError, match="without --server"):
        reconcile_remotely(remote, [large], ORDER)
    wrong = msgspec.structs.replace(ORDER, tolerance_percent="most")
    bill = tmp_path / "bill.csv"
    bill.write_text(TABLE.format(amount=1))
    with pytest.raises(InvalidInputError, match="tolerance-percent"):
        reconcile_remotely(remote, [bill], wrong)


def _zip(**files: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in files.items():
            archive.writestr(name.replace("__", "."), body)
    return packed.getvalue()


def _damaged() -> bytes:
    packed = bytearray(_zip(a__csv=TABLE.encode() * 50))
    packed[60:70] = bytes(10)
    return bytes(packed)


@pytest.mark.parametrize(
    ("make", "status", "told"),
    [
        (_zip, 400, "holds no file"),
        (lambda: b"PK no", 400, "no zip archive"),
        (_damaged, 400, "no zip archive"),
        (lambda: _zip(**{"..": b"x"}), 400, "no name of a file"),
        (lambda: _zip(a__csv=bytes(17 * 2**20), b__csv=bytes(17 * 2**20)), 413, "max_decompressed"),
        (lambda: _zip(**{f"f{n}__csv": b"x" for n in range(MAX_BILLS + 1)}), 413, "bills at once"),
    ],
)  # fmt: skip
def test_an_archive_is_bounded_and_read_or_refused(
    remote: RemoteApi, api: Any, keys: Any, make: Callable[[], bytes], status: int, told: str
) -> None:
    del remote
    key = keys.add("acme", scopes=ROLE_SCOPES[Role.FINANCE])
    params = {"provider": "openai", "name": "bills.zip", "map": "day=Date,cost=Amount"}
    with api.client(key) as client:
        answer = client.post(URL, content=make(), params=params)
    assert status == answer.status_code
    assert told in json.loads(answer.content)["detail"]
