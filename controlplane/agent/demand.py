"""How much of one budget this process uses: it sizes leases and never admits a call."""

from typing import Final

import msgspec

AHEAD_SECONDS: Final = 2.0  # a lease is sized for this much of the recent rate
SOON_SECONDS: Final = 1.0
AHEAD_CALLS: Final = 384  # and for this many calls: slow callers need not ask for each
LOW_RATIO: Final = 0.25  # of a full lease; with less left it is time to ask
FORGOTTEN_SECONDS: Final = 20.0  # one call in so many is nobody's
SMOOTHING: Final = 0.5


class Demand(msgspec.Struct):
    """Recent use of a budget, in its unit: what calls really used, not what they could have."""

    _held: int = 0
    _released: int = 0
    _calls: int = 0
    _rate: float = 0.0
    _per_call: float = 0.0
    _full: int = 0
    _is_new: bool = True
    largest: int = 0
    """Hold, of late."""

    def held(self, amount: int) -> None:
        """A call was admitted."""
        self._held += amount
        self._calls += 1
        self.largest = max(self.largest, amount)

    def released(self, amount: int) -> None:
        """A call ended and had not used so much of its hold."""
        self._released += amount

    def passed(self, seconds: float) -> None:
        """Take what happened in so many seconds into the averages."""
        used = max(0, self._held - self._released)
        recent = used / max(seconds, 1e-3)
        smoothing = 1.0 if self._is_new and self._calls else SMOOTHING
        self._rate += smoothing * (recent - self._rate)
        if self._calls:
            self._per_call += smoothing * (used / self._calls - self._per_call)
            self._is_new = False
        self._held = self._released = self._calls = 0

    @property
    def ahead(self) -> int:
        """What a full lease holds; nothing for a budget that nobody calls."""
        if self._rate * FORGOTTEN_SECONDS < self._per_call:
            return 0
        return max(int(self._rate * AHEAD_SECONDS), int(self._per_call * AHEAD_CALLS), self.largest)

    @property
    def soon(self) -> int:
        """What is used in a moment: all that is asked for by who is about to end."""
        return int(self._rate * SOON_SECONDS)

    def filled(self, left: int) -> None:
        """A grant came; it may be less than was wanted when the budget runs out."""
        self._full = left

    def is_low(self, left: int) -> bool:
        """Whether it is time to ask for more."""
        ahead = self.ahead
        return ahead > 0 and left < max(LOW_RATIO * min(ahead, self._full), self.largest)
