"""What is no price list is refused with its place; what is one says how names are matched."""

from collections.abc import Sequence
from datetime import UTC, date, datetime

import pytest

from controlplane.core.errors import ConfigError, InvalidInputError
from controlplane.pricing import import_csv
from controlplane.pricing.coverage import RangeEstimator, UnpricedUsage
from controlplane.pricing.import_csv import read_csv
from controlplane.pricing.matching import MAX_PATTERN_CHARS, Match, check_match
from controlplane.pricing.overrides import compile_overrides
from controlplane.pricing.price_book import PriceBook
from controlplane.pricing.sheet import (
    MAX_ROWS,
    Sheet,
    SheetRow,
    SheetTier,
    Usd,
    check_sheet,
    compile_providers,
)
from controlplane.pricing.what_if import Scenario, check_scenario

TIER = SheetTier(usd={"output_text": Usd("1")})


def _sheet(
    *tiers: SheetTier, provider: str = "p", rows: int = 1, match: Match | None = None
) -> Sheet:
    row = SheetRow(tiers=tiers or (TIER,))
    return Sheet(provider=provider, model="m", rows=(row,) * rows, match=match)


@pytest.mark.parametrize(
    ("sheet", "words"),
    [
        (_sheet(provider=""), "needs a provider and a model"),
        (_sheet(rows=MAX_ROWS + 1), "more than 1000 rows"),
        (_sheet(SheetTier(usd={}, above_input_tokens=5)), "do not rise from -1"),
        (_sheet(TIER, TIER), "do not rise from -1"),
        (_sheet(SheetTier(usd={"tokens": Usd("1")})), "is not a bucket"),
        (_sheet(SheetTier(usd={"output_text": Usd("x")})), "'x' is not a price"),
        (_sheet(match=Match()), "has not exactly one condition"),
        (_sheet(match=Match(equals="a", contains="b")), "has not exactly one condition"),
        (_sheet(match=Match(any_of=(Match(regex="("),))), "is not a pattern"),
        (_sheet(match=Match(regex="a" * (MAX_PATTERN_CHARS + 1))), "is not a pattern"),
    ],
)
def test_what_is_no_sheet_is_refused(sheet: Sheet, words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        check_sheet(sheet)


def test_a_good_match_is_let_through() -> None:
    check_sheet(_sheet(match=Match(all_of=(Match(starts_with="a"), Match(ends_with="z")))))
    check_match(Match(regex="^a"), field="f")


@pytest.mark.parametrize(
    ("match", "names"),
    [
        (Match(equals="GPT-4o"), ["gpt-4o"]),
        (Match(starts_with="gpt"), ["gpt-4o", "gpt-5"]),
        (Match(ends_with="5"), ["gpt-5"]),
        (Match(contains="4"), ["gpt-4o"]),
        (Match(regex="^g.*5$"), ["gpt-5"]),
        (Match(any_of=(Match(equals="o3"), Match(equals="gpt-5"))), ["gpt-5", "o3"]),
        (Match(all_of=(Match(starts_with="gpt"), Match(contains="o"))), ["gpt-4o"]),
        (Match(), []),
    ],
)
def test_conditions_mean_what_they_say(match: Match, names: Sequence[str]) -> None:
    assert list(names) == [name for name in ("gpt-4o", "gpt-5", "o3") if match.is_match(name)]


def test_an_own_price_with_a_wrong_tier_names_the_model() -> None:
    wrong = {"above_input_tokens": -1, "usd": {"output_text": "2"}}
    entry = {"provider": "p", "model": "m", "usd": {"output_text": "1"}, "tiers": [wrong]}
    with pytest.raises(ConfigError, match="p/m"):
        compile_overrides([entry])


def test_a_csv_that_never_ends_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_csv, "MAX_LINES", 2)
    lines = b"provider,model,bucket,usd\np,a,output_text,1\np,b,output_text,1\n"
    with pytest.raises(InvalidInputError, match="more than 2 lines"):
        read_csv(lines, source="s")


def test_a_scenario_that_changes_something_is_let_through() -> None:
    check_scenario(Scenario(model="m"))
    check_scenario(Scenario(cache_permille=0, max_input_tokens=0))


def test_models_without_a_price_today_bound_no_range() -> None:
    """Its only price starts next year."""
    row = SheetRow(tiers=(TIER,), valid_from=date(2999, 1, 1))
    sheet = Sheet(provider="p", model="m", rows=(row,))
    book = PriceBook("t", compile_providers([], [sheet]))
    usage = UnpricedUsage(
        provider="p", model="x", reason=None, calls=1, input_tokens=1, output_tokens=1
    )
    assert None is RangeEstimator(book, datetime(2026, 11, 20, tzinfo=UTC)).estimate(usage)
    assert book is book.current()
    assert not book.is_makers("p", "m")
