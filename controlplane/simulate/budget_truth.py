"""What really happened, counted beside the system under test and from nothing it says.

The upstream's bills say what was spent. An omniscient gate with the same ceilings, which sees every
open call of every proxy at once, says which of the denied calls would have fit.
"""

import random
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Final

import msgspec

from controlplane.core.money import divide_half_even
from controlplane.policy.document import RatePerMillion
from controlplane.policy.units import BudgetUnit

MILLION: Final = 1_000_000

WindowId = tuple[str, datetime]
"""Budget and start of its window."""


class Draw(msgspec.Struct, frozen=True, kw_only=True):
    """One call that a client wants: its bounds, and what it will really use."""

    number: int
    input_bound: int
    output_bound: int
    input_tokens: int
    output_tokens: int
    seconds: float
    is_unknown: bool
    is_refused: bool


class Call(msgspec.Struct, kw_only=True):
    """A call that went upstream."""

    draw: Draw
    windows: tuple[WindowId, ...]
    held_nusd: int
    cost_nusd: int


def bill_nusd(rate: RatePerMillion, *, input_tokens: int, output_tokens: int) -> int:
    """Return what the upstream bills: each line rounded half-even."""
    return divide_half_even(input_tokens * rate.input_nusd, MILLION) + divide_half_even(
        output_tokens * rate.output_nusd, MILLION
    )


def amount_of(unit: BudgetUnit, cost_nusd: int, *, tokens: int) -> int:
    """Return what one call that was served comes to in a unit."""
    by_unit = {BudgetUnit.USD: cost_nusd, BudgetUnit.TOKENS: tokens, BudgetUnit.REQUESTS: 1}
    return by_unit[unit]


class Waiting(msgspec.Struct):
    """A call that asked and has no answer yet."""

    least_nusd: int
    whole_nusd: int
    reserved_nusd: int = 0


class Truth:
    """Spending per window, and the gate that knows everything."""

    def __init__(self, limits: Mapping[str, int]) -> None:
        self.limits = dict(limits)
        self.spent_nusd: dict[WindowId, int] = {}
        """Through enforcement, billed."""
        self.bypassed_nusd: dict[WindowId, int] = {}
        self.allowed_nusd: dict[WindowId, int] = {}
        """The most that may be spent: the limit, or what was promised before it was lowered."""
        self.open: dict[int, Call] = {}
        self._used_nusd: dict[WindowId, int] = {}
        """By the omniscient gate's count: ended calls at their cost, open ones at their ceiling."""
        self._waiting: dict[int, Waiting] = {}
        self._now: tuple[WindowId, ...] = ()
        self.asked = self.admitted = self.denied = self.falsely_denied = 0
        self.denied_cut_off = 0
        """Would have fit, but the agent and the server did not reach each other."""
        self.unserved = 0
        """Refused for another reason than money: no policy, a policy that is too old."""
        self.offered_nusd = 0

    def enter(self, windows: Collection[WindowId]) -> None:
        """Begin windows; earlier ones are over."""
        self._now = tuple(windows)
        for window in windows:
            self.allowed_nusd.setdefault(window, self.limits[window[0]])

    def change_limit(self, budget_id: str, limit_nusd: int, *, promised_nusd: int) -> None:
        """Take a new limit; what was promised before it was lowered may still be spent."""
        self.limits[budget_id] = limit_nusd
        for window in self._now:
            if window[0] == budget_id:
                before = self.allowed_nusd[window]
                self.allowed_nusd[window] = max(limit_nusd, min(promised_nusd, before))

    def ask(self, draw: Draw, *, least_nusd: int, whole_nusd: int, cost_nusd: int) -> None:
        """A call asks to be admitted."""
        self.asked += 1
        self.offered_nusd += cost_nusd
        self._waiting[draw.number] = Waiting(least_nusd, whole_nusd)
        self._let_in()

    def admit(self, call: Call) -> None:
        """A call went upstream; what it will be billed is certain from here."""
        self.admitted += 1
        self._release(call.draw.number)
        self.open[call.draw.number] = call
        for window in call.windows:
            self.spent_nusd[window] = self.spent_nusd.get(window, 0) + call.cost_nusd
            self._use(window, call.held_nusd)

    def end(self, number: int) -> None:
        """A call ended; the gate knows its cost."""
        call = self.open.pop(number, None)
        if call is not None:
            for window in call.windows:
                self._use(window, call.cost_nusd - call.held_nusd)
            self._let_in()

    def deny(self, draw: Draw, *, for_money: bool, is_cut_off: bool = False) -> int | None:
        """A call was refused; returns what it would have held if it had fit, else None.

        An agent that can not reach the server refuses what its leases do not hold: by design.
        """
        waiting = self._waiting.pop(draw.number)
        if not for_money:
            self.unserved += 1
            self._give(-waiting.reserved_nusd)
            return None
        self.denied += 1
        if not waiting.reserved_nusd:
            return None
        if is_cut_off:
            self.denied_cut_off += 1
        else:
            self.falsely_denied += 1
        return waiting.reserved_nusd

    def end_imagined(self, held_nusd: int, cost_nusd: int) -> None:
        """A falsely denied call would have ended here."""
        self._give(cost_nusd - held_nusd)
        self._let_in()

    def abandon(self, number: int) -> None:
        """A waiting call's client or proxy is gone."""
        self._release(number)

    def bypass(self, windows: Collection[WindowId], cost_nusd: int) -> None:
        """A call that never asked."""
        for window in windows:
            self.bypassed_nusd[window] = self.bypassed_nusd.get(window, 0) + cost_nusd
            self._use(window, cost_nusd)

    @property
    def overspend_nusd(self) -> int:
        """What enforced calls cost beyond what they were allowed, all windows together."""
        return sum(
            max(0, spent - self.allowed_nusd.get(window, 0))
            for window, spent in self.spent_nusd.items()
        )

    def _use(self, window: WindowId, nusd: int) -> None:
        self._used_nusd[window] = self._used_nusd.get(window, 0) + nusd

    def _give(self, nusd: int) -> None:
        for window in self._now:
            self._use(window, nusd)

    def _release(self, number: int) -> None:
        waiting = self._waiting.pop(number, None)
        if waiting is not None and waiting.reserved_nusd:
            self._give(-waiting.reserved_nusd)

    def _let_in(self) -> None:
        """Reserve for calls that wait what an omniscient gate would give them, first come first."""
        for waiting in self._waiting.values():
            if waiting.reserved_nusd:
                continue
            room = min(
                self.limits[window[0]] - self._used_nusd.get(window, 0) for window in self._now
            )
            if room >= waiting.least_nusd:
                waiting.reserved_nusd = min(room, waiting.whole_nusd)
                self._give(waiting.reserved_nusd)


def heavy_tail(chance: random.Random, most: int) -> int:
    """Draw a quantity of which most are small and a few are huge, up to `most`."""
    return max(1, min(most, int(most * 0.08 * chance.lognormvariate(0.0, 1.2))))
