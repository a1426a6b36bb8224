"""Deployments that a program itself can call, and which of them an admitted call is sent to."""

from collections.abc import Mapping
from urllib.parse import urlsplit, urlunsplit

import msgspec

from controlplane.agent.health import Deployments
from controlplane.agent.ticket import Ticket
from controlplane.policy.assign import assign


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Where a deployment's name leads; what is empty stays as the program wrote it."""

    base_url: str
    """Replaces everything of the URL before the API's own path, `/chat/completions` and such."""
    model: str = ""
    provider: str = ""
    headers: Mapping[str, str] = {}
    path: str = ""
    """The program's own base path, `/v1` for most clients, which `base_url` replaces."""

    def url_of(self, url: str) -> str:
        """Return where a request for this URL goes."""
        asked, mine = urlsplit(url), urlsplit(self.base_url)
        path = asked.path.removeprefix(self.path or "/v1")
        return urlunsplit((mine.scheme, mine.netloc, mine.path.rstrip("/") + path, asked.query, ""))


def plan(
    ticket: Ticket,
    targets: Mapping[str, Target],
    *,
    deployments: Deployments,
    request: str,
    at: float,
) -> list[str]:
    """Return the targets to try, in order; empty: send the request as it is.

    A route chooses the first by weight, the same for the same sticky value; a failover rule says
    what follows. Names that lead nowhere here are passed over.
    """
    order: list[str] = []
    weights = {name: share for name, share in (ticket.weights or {}).items() if name in targets}
    if any(weights.values()):
        order.append(assign("route", ticket.sticky or request, weights))
    if ticket.failover:
        after = deployments.in_order(ticket.failover, at)
        order += [name for name in after if name in targets and name not in order]
        if deployments.is_open(order[0], at) if order else False:
            order.append(order.pop(0))
    return order
