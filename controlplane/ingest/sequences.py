"""Several spans of one engine that are one request: n samples, and the prompts of one batch.

vLLM 0.33 makes a span per sequence. For n > 1 each repeats the request's id, its arrival to the
microsecond and the whole prompt; a completions request with several prompts appends their number
to the id. An id alone proves nothing, because a caller may send the same one for ever (C2): the
samples of one prompt share the arrival and the prompt's length too, and the place in the trace or
the word of the request that it wanted several; a prompt's number that comes a second time is
another request.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from controlplane.ingest.join_keys import is_join_key
from controlplane.ingest.report import NEAR_US, Identity, Parents, Report, split_item
from controlplane.signals.vocabulary import Layer


def sequences(reports: Sequence[Report], parents: Parents) -> list[list[Report]]:
    """Return the requests that several of these spans report, each in order of identity."""
    by_request: defaultdict[tuple[str, ...], list[Report]] = defaultdict(list)
    for report in reports:
        if report.layer == Layer.ENGINE and report.response_id and report.sequence_joins:
            whole, item = split_item(report.response_id)
            if not item or is_join_key(whole):
                by_request[(*_emitter(report), whole)].append(report)
    shared = [group for group in by_request.values() if len(group) > 1]
    if not shared:
        return []
    samples = _Samples(reports, parents)
    return [one for group in shared for one in _cut(group, samples) if len(one) > 1]


def _emitter(report: Report) -> tuple[str, ...]:
    return (report.domain, report.tenant, report.key_id, report.service, report.scope)


class _Samples:
    """Says whether two spans of one prompt are samples of one request."""

    def __init__(self, reports: Iterable[Report], parents: Parents) -> None:
        self._parents = parents
        callers = Counter(
            (report.domain, report.join_id, report.layer, report.scope)
            for report in reports
            if report.layer != Layer.ENGINE and report.response_id_joins
        )
        self._reused = {(domain, key) for (domain, key, *_), count in callers.items() if count > 1}

    def are(self, first: Report, report: Report) -> bool:
        """Whether they are: the request asked for several, or both hang in one place.

        Without a parent, each sample is the root of a trace of its own. Then the id must be one
        that names a response, and no two callers may have it.
        """
        if first.start_us != report.start_us or first.input_tokens != report.input_tokens:
            return False
        if min(first.choices or 0, report.choices or 0) > 1:
            return True
        above, other = self._parent(first), self._parent(report)
        if first.trace == report.trace:
            return above == other != 0
        is_root = above == other == 0
        names_one = first.response_id_joins and report.response_id_joins
        return is_root and names_one and (report.domain, report.join_id) not in self._reused

    def _parent(self, report: Report) -> int:
        return self._parents.get((*report.trace, report.span_id), 0)


def _cut(group: Iterable[Report], samples: _Samples) -> list[list[Report]]:
    """Split reports of one id where the next can not be of the same request."""
    requests: list[list[Report]] = []
    first_of: dict[str, Report] = {}
    last_us = 0
    for report in sorted(group, key=lambda one: one.identity):
        item = split_item(report.response_id or "")[1]
        first = first_of.get(item)
        is_other = first is not None and not samples.are(first, report)
        is_new_kind = bool(first_of) and ("" in first_of) != (item == "")
        if not requests or is_other or is_new_kind or report.start_us - last_us > NEAR_US:
            requests.append([])
            first_of = {}
        requests[-1].append(report)
        first_of.setdefault(item, report)
        last_us = report.start_us
    return requests


def prompts(members: Sequence[Report], request: frozenset[Identity]) -> tuple[tuple[int, ...], ...]:
    """Return the rows of `members` that belong to a request, the samples of a prompt together."""
    rows: defaultdict[str, list[int]] = defaultdict(list)
    for report in members:
        if report.identity in request:
            rows[split_item(report.response_id or "")[1]].append(report.row)
    return tuple(tuple(rows[item]) for item in sorted(rows))
