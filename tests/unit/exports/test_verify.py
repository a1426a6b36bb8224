"""Evidence: what was changed is found and named, from the bytes alone."""

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from hashlib import sha256

import msgspec
import pyarrow as pa
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from controlplane.exports.manifest import (
    MANIFEST_NAME,
    PUBLIC_KEY_NAME,
    SIGNATURE_NAME,
    FileEntry,
    Manifest,
    file_root,
    key_id,
    public_pem,
    sign,
)
from controlplane.exports.traces import parse_csv_totals, to_csv, to_parquet
from controlplane.exports.verify import verify_export

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
NOW = datetime(2026, 3, 1, tzinfo=UTC)
COSTS = [1, None, 2_500_000_000, 43_000, None]
TOTAL = 2_500_043_001


def _table() -> pa.Table:
    count = len(COSTS)
    return pa.table(
        {
            "trace_hi": pa.array([2**63 + i for i in range(count)], pa.uint64()),
            "trace_lo": pa.array(range(count), pa.uint64()),
            "span_id": pa.array([255] * count, pa.uint64()),
            "start_time": pa.array([NOW] * count, pa.timestamp("us", tz="UTC")),
            "request_model": ['=cmd("x")', "gpt-4o", "a,b", 'q"q', "é"],
            "cost_nusd": pa.array(COSTS, pa.int64()),
        }
    )


def _export() -> dict[str, bytes]:
    bodies = {"calls-00000.parquet": to_parquet(_table()), "calls-00001.csv": to_csv(_table())}
    return _signed(bodies, total=TOTAL)


def _signed(bodies: dict[str, bytes], *, total: int, rows: int = len(COSTS)) -> dict[str, bytes]:
    files = tuple(
        FileEntry(
            name=name,
            bytes=len(body),
            sha256=sha256(body).hexdigest(),
            rows=rows,
            total_nusd=total,
            unpriced_rows=2,
        )
        for name, body in bodies.items()
    )
    manifest = Manifest(
        export_id="exp_1",
        kind="traces",
        tenant="acme",
        start=NOW,
        end=NOW,
        created_at=NOW,
        data_through=NOW,
        software="test",
        kid=key_id(KEY.public_key()),
        files=files,
        root=file_root(files),
    )
    body, signature = sign(manifest, KEY)
    pem = public_pem(KEY.public_key())
    return {**bodies, MANIFEST_NAME: body, SIGNATURE_NAME: signature, PUBLIC_KEY_NAME: pem}


def test_an_untouched_export_is_good_and_says_what_it_could_not_prove() -> None:
    """Without the signer's own key there is a warning; with it, nothing."""
    result = verify_export(_export())
    assert result.ok
    assert ["key_not_pinned"] == [finding.code for finding in result.findings]
    pinned = verify_export(_export(), trusted_key=public_pem(KEY.public_key()))
    assert (True, (), 10, 2 * TOTAL) == (pinned.ok, pinned.findings, pinned.rows, pinned.total_nusd)


def _without(name: str) -> Callable[[dict[str, bytes]], None]:
    def change(files: dict[str, bytes]) -> None:
        del files[name]

    return change


def _flip(name: str) -> Callable[[dict[str, bytes]], None]:
    def change(files: dict[str, bytes]) -> None:
        files[name] = files[name][:-3] + bytes([files[name][-3] ^ 1]) + files[name][-2:]

    return change


def _add(files: dict[str, bytes]) -> None:
    files["calls-00002.csv"] = b"x"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_flip("calls-00000.parquet"), "changed_file"),
        (_flip("calls-00001.csv"), "changed_file"),
        (_flip(MANIFEST_NAME), "bad_signature"),
        (_flip(SIGNATURE_NAME), "bad_signature"),
        (_without("calls-00001.csv"), "missing_file"),
        (_without(MANIFEST_NAME), "missing_file"),
        (_without(PUBLIC_KEY_NAME), "bad_public_key"),
        (_add, "extra_file"),
    ],
)
def test_every_change_is_found(change: Callable[[dict[str, bytes]], None], expected: str) -> None:
    """One bit anywhere, one file more or less."""
    files = _export()
    change(files)
    result = verify_export(files)
    assert not result.ok
    assert expected in [finding.code for finding in result.findings]


@pytest.mark.parametrize(
    ("total", "rows", "expected"), [(TOTAL + 1, 5, "wrong_total"), (TOTAL, 6, "wrong_rows")]
)
def test_a_signed_lie_is_found(total: int, rows: int, expected: str) -> None:
    """A signature does not make a total right."""
    files = _signed({"calls-00001.csv": to_csv(_table())}, total=total, rows=rows)
    assert [expected, "key_not_pinned"] == sorted(
        (finding.code for finding in verify_export(files).findings), reverse=True
    )


def test_another_signers_key_is_refused() -> None:
    """A pinned key that did not sign."""
    other = Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key()
    result = verify_export(_export(), trusted_key=public_pem(other))
    assert ["bad_signature"] == [finding.code for finding in result.findings]


def test_csv_money_is_exact_usd_text() -> None:
    """Decimal strings without exponent; unknown is empty, not zero."""
    lines = to_csv(_table()).decode().splitlines()
    header = lines[0].split(",")
    assert "cost_usd" in header
    last = [line.rsplit(",", 1)[1] for line in lines[1:]]
    assert ["0.000000001", "", "2.5", "0.000043", ""] == last
    expected = int(sum(Decimal(text) for text in last if text) * 10**9)
    assert (5, expected, 2) == parse_csv_totals(to_csv(_table()))


def test_manifest_is_closed() -> None:
    """A field nobody knows is refused."""
    body = msgspec.json.decode(_export()[MANIFEST_NAME])
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({**body, "more": 1}, Manifest, strict=False)
