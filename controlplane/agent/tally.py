"""What this process did since it started: how a roll-out sees that a policy does harm."""

from controlplane.policy.wire import CallCounts


class Tally:
    """Three counters; the holder's lock guards them."""

    def __init__(self) -> None:
        self.admitted = 0
        self.refused = 0
        self.errors = 0

    def counts(self) -> CallCounts:
        """Return what a sync says."""
        return CallCounts(admitted=self.admitted, refused=self.refused, errors=self.errors)
