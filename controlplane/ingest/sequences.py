"""Several spans of one engine that are one request: n samples, and the prompts of one batch.

vLLM 0.33 makes a span per sequence. For n > 1 each repeats the request's id, its arrival to the
microsecond and the whole prompt; a completions request with several prompts appends their number
to the id. An id alone proves nothing, because a caller may send the same one for ever (C2): the
samples of one prompt share the arrival and the prompt's length too, and a prompt's number that
comes a second time is another request.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from controlplane.ingest.join_keys import is_join_key
from controlplane.ingest.report import NEAR_US, Identity, Report, split_item
from controlplane.signals.vocabulary import Layer


def sequences(reports: Iterable[Report]) -> list[list[Report]]:
    """Return the requests that several of these spans report, each in order of identity."""
    by_request: defaultdict[tuple[str, ...], list[Report]] = defaultdict(list)
    for report in reports:
        if report.layer == Layer.ENGINE and report.response_id and report.sequence_joins:
            whole, item = split_item(report.response_id)
            if not item or is_join_key(whole):
                by_request[(*_emitter(report), whole)].append(report)
    requests: list[list[Report]] = []
    for group in by_request.values():
        if len(group) > 1:
            requests += [one for one in _cut(group) if len(one) > 1]
    return requests


def _emitter(report: Report) -> tuple[str, ...]:
    return (report.domain, report.tenant, report.key_id, report.service, report.scope)


def _cut(group: Iterable[Report]) -> list[list[Report]]:
    """Split reports of one id where the next can not be of the same request."""
    requests: list[list[Report]] = []
    first_of: dict[str, Report] = {}
    last_us = 0
    for report in sorted(group, key=lambda one: one.identity):
        item = split_item(report.response_id or "")[1]
        first = first_of.get(item)
        is_other = first is not None and not _is_sample(first, report)
        is_new_kind = bool(first_of) and ("" in first_of) != (item == "")
        if not requests or is_other or is_new_kind or report.start_us - last_us > NEAR_US:
            requests.append([])
            first_of = {}
        requests[-1].append(report)
        first_of.setdefault(item, report)
        last_us = report.start_us
    return requests


def _is_sample(first: Report, report: Report) -> bool:
    """Whether two spans of one prompt are samples of one request."""
    return first.start_us == report.start_us and first.input_tokens == report.input_tokens


def prompts(members: Sequence[Report], request: frozenset[Identity]) -> tuple[tuple[int, ...], ...]:
    """Return the rows of `members` that belong to a request, the samples of a prompt together."""
    rows: defaultdict[str, list[int]] = defaultdict(list)
    for report in members:
        if report.identity in request:
            rows[split_item(report.response_id or "")[1]].append(report.row)
    return tuple(tuple(rows[item]) for item in sorted(rows))
