"""What share of the numbers is doubtful, and why (UX-21)."""

from collections.abc import Mapping, Sequence
from fractions import Fraction

import msgspec

from controlplane.usage.completeness import Account


class Shares(msgspec.Struct, frozen=True, kw_only=True):
    """Parts between 0 and 1; None where there is nothing to be a part of."""

    unpriced_tokens: float | None
    unattributed_cost: float | None
    """Of the known cost, what no team is named for."""
    duplicate_reports: float | None
    """Of the reports of calls, those that tell of a call that another bills."""
    late: float | None
    """Of what was stored, what came an hour late or more."""
    ahead: float | None
    """Of what was stored, what was said to start in the future."""
    rejected: float | None
    """Of what was received, what could not be stored."""


def measure_shares(
    teams: Sequence[Mapping[str, int | str | None]], *, duplicates: int, accounts: Sequence[Account]
) -> Shares:
    """Measure a window from its costs by team, its suppressed reports and its accounts.

    `teams` are rows with `team`, `calls`, `cost_nusd`, `input_tokens`, `output_tokens` and
    `unpriced_tokens`; no team is None.
    """

    def total(name: str, *, unattributed: bool = False) -> int:
        rows = (row for row in teams if not unattributed or row["team"] is None)
        return sum(int(row[name] or 0) for row in rows)

    stored = sum(one.stored for one in accounts)
    return Shares(
        unpriced_tokens=_share(
            total("unpriced_tokens"), total("input_tokens") + total("output_tokens")
        ),
        unattributed_cost=_share(total("cost_nusd", unattributed=True), total("cost_nusd")),
        duplicate_reports=_share(duplicates, duplicates + total("calls")),
        late=_share(sum(one.late for one in accounts), stored),
        ahead=_share(sum(one.ahead for one in accounts), stored),
        rejected=_share(
            sum(one.rejected for one in accounts), sum(one.received for one in accounts)
        ),
    )


def _share(part: int, whole: int) -> float | None:
    return float(Fraction(part, whole)) if whole > 0 else None
