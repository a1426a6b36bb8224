"""Evidence: what was changed is found and named, from the bytes alone."""

import csv
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from hashlib import sha256
from io import BytesIO, StringIO

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from controlplane.exports.manifest import (
    MANIFEST_NAME,
    PUBLIC_KEY_NAME,
    SIGNATURE_NAME,
    FileEntry,
    Manifest,
    file_root,
    file_sums,
    key_id,
    public_pem,
    sign,
)
from controlplane.exports.traces import ID_COLUMNS, parse_csv_totals, to_csv, to_parquet
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


def _parquet_without_costs() -> bytes:
    buffer = BytesIO()
    pq.write_table(pa.table({"a": [1]}), buffer)
    return buffer.getvalue()


def _export() -> dict[str, bytes]:
    bodies = {"calls-00000.parquet": to_parquet(_table()), "calls-00001.csv": to_csv(_table())}
    return _signed(bodies, total=TOTAL)


def _signed(
    bodies: dict[str, bytes],
    *,
    total: int = TOTAL,
    rows: int = len(COSTS),
    twice: bool = False,
    said: tuple[int, int, int] | None = None,
) -> dict[str, bytes]:
    files = tuple(
        FileEntry(
            name=name,
            bytes=len(body),
            sha256=sha256(body).hexdigest(),
            rows=rows,
            total_nusd=total,
            unpriced_rows=2,
        )
        for name, body in list(bodies.items()) * (2 if twice else 1)
    )
    sums = said or file_sums(files)
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
        csv_escaped=True,
        rows=sums[0],
        total_nusd=sums[1],
        unpriced_rows=sums[2],
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


def _codes(files: dict[str, bytes], **trusted: bytes) -> list[str]:
    return [f.code for f in verify_export(files, **trusted).findings if f.severity == "error"]


CSV = {"calls-00001.csv": to_csv(_table())}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (_signed(CSV, total=TOTAL + 1), ["wrong_total"]),
        (_signed(CSV, rows=6), ["wrong_rows"]),
        (_signed(CSV, said=(5, TOTAL + 1, 2)), ["wrong_sum"]),
        (_signed(CSV, twice=True), ["file_named_twice"]),
        (_signed({"statement.pdf": b"%PDF"}), ["wrong_rows"]),  # a document holds no money
        (_signed({"focus-metadata.json": b"{}"}, total=0), ["wrong_rows"]),
        (_signed({"a.parquet": b"PAR1 or not"}), ["unreadable_file"]),
        (_signed({"a.parquet": _parquet_without_costs()}), ["unreadable_file"]),
        (_signed({"a.csv": b"\xff\xfe\x00,"}), ["unreadable_file"]),
        (_signed({"a.csv": b"model\ngpt-4o\n"}), ["unreadable_file"]),
        (_signed({"a.csv": b"cost_usd\none dollar\n"}), ["unreadable_file"]),
    ],
)
def test_a_signed_lie_is_found(files: dict[str, bytes], expected: list[str]) -> None:
    """A signature makes neither a total right nor a file readable."""
    assert expected == _codes(files)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("format", "controlplane-export/9", "unknown_format"),
        ("kid", "0" * 16, "wrong_key_id"),
        ("root", "0" * 64, "wrong_root"),
        ("rows", "five", "bad_manifest"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_found(field: str, value: str, expected: str) -> None:
    """Signed by the right key, and still not believed."""
    files = _export()
    body = msgspec.json.encode({**msgspec.json.decode(files[MANIFEST_NAME]), field: value})
    files |= {MANIFEST_NAME: body, SIGNATURE_NAME: KEY.sign(body)}
    assert [expected] == _codes(files)


def test_a_key_of_another_kind_is_refused() -> None:
    """An elliptic curve key can not have signed this."""
    pem = ec.generate_private_key(ec.SECP256R1()).public_key()
    other = pem.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    assert ["bad_signature"] == _codes(_export(), trusted_key=other)
    assert ["bad_public_key"] == _codes(_export(), trusted_key=b"not a key")


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


def test_csv_texts_are_safe_to_open_and_can_be_restored() -> None:
    """Formulas get a quote, numbers do not (CWE-1236); one quote off gives every text back."""
    texts = ["=cmd|' /C calc'!A0", "+1", "-1", "@sum", "\tx", "\rx", "'quoted", "gpt-4o", "", None]
    table = pa.table(
        {
            **{name: pa.array([1] * len(texts), pa.uint64()) for name in ID_COLUMNS[:3]},
            "request_model": texts,
            "cost_nusd": pa.array([-1_500_000_000] * len(texts), pa.int64()),
            "attributes": pa.array([[("k", "v")]] * len(texts), pa.map_(pa.string(), pa.string())),
        }
    )
    rows = list(csv.DictReader(StringIO(to_csv(table).decode(), newline="")))
    assert ["-1.5"] * len(texts) == [row["cost_usd"] for row in rows]
    shown = [row["request_model"] for row in rows]
    assert ["'" + str(text) for text in texts[:7]] == shown[:7]
    assert [text or "" for text in texts] == [text.removeprefix("'") for text in shown]


def test_the_same_rows_are_the_same_bytes() -> None:
    """However they came in chunks: nothing of the moment is in a file."""
    table = _table()
    chunked = pa.concat_tables([table.slice(0, 2), table.slice(2)])
    assert to_csv(table) == to_csv(chunked)
    assert to_parquet(table) == to_parquet(chunked)


def test_manifest_is_closed() -> None:
    """A field nobody knows is refused."""
    body = msgspec.json.decode(_export()[MANIFEST_NAME])
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({**body, "more": 1}, Manifest, strict=False)
