"""Attempts of one request: each is a call, and one that was given up on may still be billed (C5)."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from controlplane.ingest.report import REACH_US, Identity, Report, crosses_layers
from controlplane.signals.vocabulary import Status


class Attempts:
    """What became of a request after each of its attempts.

    The request is the nearest report above in the trace, of another layer: a client's, where a
    proxy tries several upstreams.
    """

    def __init__(
        self,
        spans: Mapping[Identity, Report],
        above: Mapping[Identity, Report],
        calls: Mapping[Identity, Sequence[Identity]],
    ) -> None:
        """Take reports by identity, the report above each, and the members of each one's call."""
        self._above = above
        self._calls = calls
        self._of_request: defaultdict[Identity, list[Report]] = defaultdict(list)
        for identity, request in above.items():
            if is_attempt(request, spans[identity]):
                self._of_request[request.identity].append(spans[identity])

    def of(self, report: Report) -> str | None:
        """Answer `hedge` if another attempt ran beside a failed one, `retry` if one followed."""
        request = self._above.get(report.identity)
        if request is None or report.status != Status.ERROR:
            return None
        ours = self._calls[report.identity]
        others = [
            one
            for one in self._of_request.get(request.identity, ())
            if self._calls[one.identity] is not ours
        ]
        if any(_overlap(report, one) for one in others):
            return "hedge"
        return "retry" if any(one.start_us >= report.end_us for one in others) else None


def is_attempt(request: Report, report: Report) -> bool:
    """Whether a report was made on behalf of the one above it."""
    near = abs(request.start_us - report.start_us) <= REACH_US
    return near and crosses_layers(request, report)


def _overlap(one: Report, other: Report) -> bool:
    return max(one.start_us, other.start_us) < min(one.end_us, other.end_us)
