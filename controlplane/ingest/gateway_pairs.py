"""A client's and a registered gateway's report of one call, where neither ids nor traces propagate.

What is left is that both say the same of one call: which gateway, model, ending and usage, at one
time. Of each such group the k-th client report is matched with the k-th gateway report in order of
start, so that n calls that both report are n calls, and of a call that only one reports nothing is
lost: the count is the larger layer's (algorithms C3).

A match must be possible: the gateway's begins while the client's call lasts. Where lengths differ so
much that the k-th pairs leave more unmatched than need be, each gateway report takes the client
call that ends first instead, which makes the most pairs there are.

Groups are cut into cells of a minute, and what a minute leaves over is matched with what the next
one does. So a pair depends on its own two minutes alone, however long a group goes on.
"""

from bisect import insort
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from controlplane.ingest.billing import rank
from controlplane.ingest.join_keys import CLOCKS_APART_US, gateway_cell
from controlplane.ingest.report import Report
from controlplane.signals.vocabulary import KeyRole, Layer

Members = Sequence[Report]
Pair = tuple[Report, Report]
MayBeOne = Callable[[Report, Report], bool]
_Key = tuple[str | int | None, ...]


class _Cell(NamedTuple):
    clients: list[Report]
    proxies: list[Report]


def gateway_pairs(calls: Iterable[Members], *, may_be_one: MayBeOne) -> Iterator[Pair]:
    """Yield (client's, gateway's) reports whose calls are one; `calls` are joined by all else."""
    groups: defaultdict[_Key, defaultdict[int, _Cell]] = defaultdict(
        lambda: defaultdict(lambda: _Cell([], []))
    )
    for members in calls:
        speaker = _speaker(members)
        if speaker is not None:
            cell = groups[_group(speaker)][_cell(speaker)]
            (cell.proxies if is_gateway(speaker) else cell.clients).append(speaker)
    for key in sorted(groups, key=repr):
        cells = groups[key]
        pairs = [pair for at in sorted(cells) for pair in _matched(*cells[at], may_be_one)]
        yield from pairs
        taken = {report.identity for pair in pairs for report in pair}
        for at in sorted(cells):
            if at + 1 in cells:
                clients = [one for one in cells[at].clients if one.identity not in taken]
                proxies = [one for one in cells[at + 1].proxies if one.identity not in taken]
                yield from _matched(clients, proxies, may_be_one)


def is_gateway(report: Report) -> bool:
    """Whether a report was made by a proxy, whatever library it uses."""
    return report.layer == Layer.PROXY or report.key_role == KeyRole.PROXY


def _speaker(members: Members) -> Report | None:
    """Find the report that speaks for a call that lacks its client's or its gateway's side."""
    proxies = [one for one in members if is_gateway(one)]
    clients = [one for one in members if one.layer == Layer.CLIENT and not is_gateway(one)]
    if bool(proxies) == bool(clients):
        return None
    told = [one for one in proxies or clients if one.gateway is not None and one.cell_joins]
    return rank(told)[0] if told else None


def _group(report: Report) -> _Key:
    usage = (report.input_tokens, report.tokens)
    return (report.domain, report.gateway, report.billing_model, report.status, *usage)


def _cell(report: Report) -> int:
    return gateway_cell(report.start_us, is_gateway=is_gateway(report))


def _matched(clients: list[Report], proxies: list[Report], may_be_one: MayBeOne) -> list[Pair]:
    if not clients or not proxies:
        return []
    clients.sort(key=lambda one: one.identity)
    proxies.sort(key=lambda one: one.identity)
    in_order = _in_order(clients, proxies, may_be_one)
    if len(in_order) == min(len(clients), len(proxies)):
        return in_order
    most = _most(clients, proxies, may_be_one)
    return most if len(most) > len(in_order) else in_order


def _in_order(clients: Members, proxies: Members, may_be_one: MayBeOne) -> list[Pair]:
    """Match each gateway report with the first client report that is left."""
    left = list(clients)
    pairs = []
    for proxy in proxies:
        at = next((n for n, one in enumerate(left) if _is_one(one, proxy, may_be_one)), None)
        if at is not None:
            pairs.append((left.pop(at), proxy))
    return pairs


def _most(clients: Members, proxies: Members, may_be_one: MayBeOne) -> list[Pair]:
    """Match each gateway report with the client report that ends first."""
    left: list[Report] = []
    for one in clients:
        insort(left, one, key=lambda report: (report.end_us, report.identity))
    return _in_order(left, proxies, may_be_one)


def _is_one(client: Report, proxy: Report, may_be_one: MayBeOne) -> bool:
    earliest, latest = client.start_us - CLOCKS_APART_US, client.end_us + CLOCKS_APART_US
    if not earliest <= proxy.start_us <= latest:
        return False
    has_ids = client.response_id_joins and proxy.response_id_joins
    return not has_ids and may_be_one(client, proxy)
