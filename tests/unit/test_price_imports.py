"""`prices import` and `rerate` as a person meets them: the diff, the calls it moves, then the facts."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from controlplane.bootstrap.places import SPANS_FILE
from controlplane.bootstrap.price_books import load_book
from controlplane.bootstrap.price_imports import AskedImport, import_prices
from controlplane.bootstrap.rerates import AskedRerate, rerate
from controlplane.core.errors import InvalidInputError, NotFoundError
from controlplane.pipelines.import_prices import PriceFormat
from controlplane.pipelines.settle import settle_tick
from controlplane.pricing.price import price
from controlplane.pricing.quote import quote
from controlplane.settings import Settings, load
from controlplane.signals.schema import ATTRIBUTED_SCHEMA
from controlplane.store.spans.duckdb_store import DuckDbSpanStore

NOV = datetime(2026, 11, 20, tzinfo=UTC)
START, END = "2026-11-20", "2026-11-21"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load(overrides={"data_dir": tmp_path}, environ={})


@pytest.fixture
def stored(settings: Settings, span_rows: Callable[..., pa.Table]) -> Settings:
    """One call of a model nobody prices, one of gpt-4o: a million tokens out each."""
    used = {"output_tokens": 10**6, "output_text": 10**6, "input_tokens": 0}
    rows = span_rows(
        {**used, "span_id": 2, "trace_lo": 2, "billing_model": "house-1"},
        {**used, "span_id": 3, "trace_lo": 3, "billing_model": "gpt-4o"},
    )
    store = DuckDbSpanStore(settings.data_dir / SPANS_FILE)
    priced = price(rows.select(ATTRIBUTED_SCHEMA.names), load_book(settings))
    store.write(priced, batch_id="b")
    settle_tick(store, now=NOV, ledger=None)
    store.close()
    return settings


def _csv(settings: Settings, *lines: str) -> Path:
    file = settings.data_dir / "p.csv"
    file.write_text("\n".join(["provider,model,bucket,usd,valid_from", *lines]) + "\n")
    return file


def test_an_import_is_shown_with_the_calls_it_moves_and_then_recorded(stored: Settings) -> None:
    file = _csv(stored, "openai,house-1,output_text,2,", "openai,gpt-4o,output_text,12,")
    asked = AskedImport(file=file, format=PriceFormat.CSV, is_to_apply=False, start=START, end=END)
    shown = import_prices(stored, asked)
    assert ("previewed", 1, 1, 0, None) == (
        shown.state,
        shown.added,
        shown.changed,
        shown.removed,
        shown.version,
    )
    # gpt-4o is dearer from today on, so the call of the 20th stays; house-1 had no price at all.
    assert shown.calls
    assert (1, "2") == (shown.calls.calls, shown.calls.moved_usd)
    changed = next(one for one in shown.changes if one.key == "openai/gpt-4o")
    assert [("10", "12")] == [(r.old_usd_per_million, r.new_usd_per_million) for r in changed.rates]
    recorded = import_prices(
        stored,
        AskedImport(file=file, format=PriceFormat.CSV, is_to_apply=True, start=START, end=END),
    )
    assert ("applied", "prices@2") == (recorded.state, recorded.version)
    usage = {"output_text": 10**6}
    answer = quote(load_book(stored), provider="openai", model="house-1", at=NOV, usage=usage)
    assert 2 * 10**9 == answer.total_nusd
    assert (
        0
        == import_prices(
            stored, AskedImport(file=file, format=PriceFormat.CSV, is_to_apply=True)
        ).added
    )


def test_a_new_price_reaches_old_calls_by_a_re_rate(stored: Settings) -> None:
    file = _csv(stored, "openai,house-1,output_text,2,")
    import_prices(stored, AskedImport(file=file, format=PriceFormat.CSV, is_to_apply=True))

    def run(*, is_to_apply: bool) -> tuple[str, int, str]:
        asked = AskedRerate(
            price_version=None, tenants=(), is_to_apply=is_to_apply, start=START, end=END
        )
        answer = rerate(stored, asked)
        return answer.state, answer.calls, answer.moved_usd

    assert ("previewed", 1, "2") == run(is_to_apply=False)
    assert ("applied", 1, "2") == run(is_to_apply=True)
    assert ("applied", 0, "0") == run(is_to_apply=True)


def test_wrong_orders_are_refused(stored: Settings) -> None:
    with pytest.raises(InvalidInputError, match="not after start"):
        rerate(
            stored,
            AskedRerate(
                start="2026-11-21",
                end="2026-11-21",
                price_version=None,
                tenants=(),
                is_to_apply=False,
            ),
        )
    with pytest.raises(NotFoundError, match="price version"):
        rerate(
            stored, AskedRerate(price_version=9, tenants=(), is_to_apply=True, start=START, end=END)
        )
    for file, kind in ((None, PriceFormat.CSV), (Path("/nowhere"), PriceFormat.LITELLM)):
        with pytest.raises(InvalidInputError, match="file"):
            import_prices(stored, AskedImport(file=file, format=kind, is_to_apply=False))


def test_the_installed_data_set_is_what_was_seeded(settings: Settings) -> None:
    asked = AskedImport(file=None, format=PriceFormat.GENAI_PRICES, is_to_apply=True)
    answer = import_prices(settings, asked)
    assert ([], "previewed", "no calls are stored here") == (
        answer.changes,
        answer.state,
        answer.calls_note,
    )


def test_a_newer_data_file_is_compared_row_by_row(settings: Settings) -> None:
    """One model of one provider: all others are removed, which is said and not hidden."""
    data = [
        {
            "id": "openai",
            "name": "OpenAI",
            "api_pattern": "x",
            "models": [
                {"id": "gpt-4o", "match": {"equals": "gpt-4o"}, "prices": {"input_mtok": 3}}
            ],
        }
    ]
    file = settings.data_dir / "data.json"
    file.write_text(json.dumps(data))
    answer = import_prices(
        settings, AskedImport(file=file, format=PriceFormat.GENAI_PRICES, is_to_apply=False)
    )
    assert (0, 1) == (answer.added, answer.changed)
    assert answer.removed > 2_000
    (changed,) = [one for one in answer.changes if one.change == "changed"]
    new = {r.bucket: r.new_usd_per_million for r in changed.rates if r.row == "base"}
    assert ("3", None) == (new["input_uncached"], new["output_text"])
    file.write_text("[1]")
    with pytest.raises(InvalidInputError, match="genai-prices data file"):
        import_prices(
            settings, AskedImport(file=file, format=PriceFormat.GENAI_PRICES, is_to_apply=False)
        )


def test_litellms_map_says_what_it_left_out(settings: Settings) -> None:
    file = settings.data_dir / "map.json"
    said = {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 1e-06}
    file.write_text(json.dumps({"house-2": {**said, "input_cost_per_pixel": 1}}))
    answer = import_prices(
        settings, AskedImport(file=file, format=PriceFormat.LITELLM, is_to_apply=True)
    )
    assert (1, {"input_cost_per_pixel": 1}, "applied") == (
        answer.added,
        answer.left_out,
        answer.state,
    )
