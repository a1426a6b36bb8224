"""What the seed gets wrong, with the evidence; each is a rule of matching, never a number of ours.

A data set matches names by pattern, and a pattern that is too wide gives a model the price of
another. A correction narrows it: `names` go to the sheet `model`, before any pattern is asked. One
that no longer finds its sheet changes nothing; `tests/oracle` says which are still needed.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from controlplane.pricing.matching import Match
from controlplane.pricing.sheet import Sheet


class Correction(msgspec.Struct, frozen=True):
    """Names that a provider's wider pattern takes, and the sheet that they belong to."""

    provider: str
    model: str
    names: Match
    evidence: str


CORRECTIONS: Final = (
    Correction(
        "google",
        "gemini-flash-1.5-8b",
        Match(contains="gemini-1.5-flash-8b"),
        "ai.google.dev/gemini-api/docs/pricing as of 2024-10-03: Gemini 1.5 Flash-8B is $0.0375 in,"
        " $0.15 out; `contains gemini-1.5-flash` gives it Flash's $0.075 and $0.30",
    ),
)


def corrected(sheets: Sequence[Sheet]) -> list[Sheet]:
    """Return the sheets with wider names, each corrected sheet before all others of its provider."""
    return [_corrected(sheet) for sheet in sheets]


def _corrected(sheet: Sheet) -> Sheet:
    for number, fix in enumerate(CORRECTIONS):
        if (fix.provider, fix.model) == (sheet.provider, sheet.model):
            own = sheet.match or Match(equals=sheet.model)
            return msgspec.structs.replace(
                sheet, match=Match(any_of=(own, fix.names)), position=number - len(CORRECTIONS)
            )
    return sheet
