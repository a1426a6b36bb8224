"""A policy as Envoy's routes: what can be decided from headers alone is decided in Envoy itself.

Rules whose selectors are all read from headers become routes: deny as a direct response, rates as
a local limit, weights as weighted clusters (a deployment is the cluster of its name). Everything
else is left to ext_authz, which asks the agent.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Final, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from controlplane.agent.envoy import messages_pb2 as wire
from controlplane.policy.document import Deny, PolicyDocument, Route, Rule, Throttle, When

RATE_LIMIT_FILTER: Final = "envoy.filters.http.local_ratelimit"
RATE_LIMIT_TYPE: Final = (
    "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"
)
AUTHZ_FILTER: Final = "envoy.filters.http.ext_authz"
AUTHZ_TYPE: Final = (
    "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute"
)
ADMISSION_FILTER: Final = "controlplane.admission"
USAGE_FILTER: Final = "controlplane.usage"
PROC_TYPE: Final = "type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExtProcPerRoute"
HOLD_HEADER: Final = "x-controlplane-hold"
POLICY_HEADER: Final = "x-controlplane-policy"
MAX_ROUTES: Final = 2_000
MAX_REASON: Final = 500
"""Characters of a deny rule's reason that Envoy says; a body above 4 KiB it refuses with all routes."""
OURS_TO_SAY: Final = (
    HOLD_HEADER,
    *("x-envoy-retry-on", "x-envoy-retry-grpc-on", "x-envoy-max-retries"),
    *("x-envoy-hedge-on-per-try-timeout", "x-envoy-upstream-rq-per-try-timeout-ms"),
)
"""Headers that no sender may send on: a hold is for one attempt, and Envoy makes more on request."""
TOO_MANY: Final = 429
OVERWRITE: Final = 2
HEADER: Final = "header."
REQUEST_NAME: Final = {"x-request-id": "%REQ(x-request-id)%"}
"""On answers that are Envoy's own: which request it was."""

_Kind = TypeVar("_Kind", Deny, Throttle, Route)
Matchers = dict[str, list[str]]
"""Header → the values of a selector that it must have one of."""


def routes_of(document: PolicyDocument, *, name: str, cluster: str) -> wire.RouteConfiguration:
    """Render a document.

    Args:
        document: the policy in force.
        name: of the route configuration that Envoy asks for.
        cluster: where a request goes that no route rule chooses for.
    """
    policy = f"{document.epoch}.{document.gen}"
    ordered = sorted(document.rules, key=lambda rule: -rule.priority)
    denies = [_deny(rule, found, policy) for rule, found in _of_headers(ordered, document, Deny)]
    throttles: list[tuple[Throttle | None, Matchers]] = [
        (rule, found)
        for rule, found in _of_headers(ordered, document, Throttle)
        if rule.rps is not None or rule.rpm is not None
    ]
    routes: list[tuple[Route | None, Matchers]] = [*_of_headers(ordered, document, Route)]
    if len(denies) + (len(throttles) + 1) * (len(routes) + 1) > MAX_ROUTES:
        throttles = []  # the agent counts them all the same, for the calls that it admits
    sent = [
        _forward(throttle, route, matchers=[limited, chosen], document=document, cluster=cluster)
        for throttle, limited in [*throttles, (None, {})]
        for route, chosen in [*routes, (None, {})]
    ]
    kept = denies[: max(0, MAX_ROUTES - len(sent))]  # the agent refuses what the others would
    host = wire.VirtualHost(name=name, domains=["*"], routes=[*kept, *sent])
    return wire.RouteConfiguration(name=name, virtual_hosts=[host])


def _of_headers(
    rules: Sequence[Rule], document: PolicyDocument, kind: type[_Kind]
) -> Iterator[tuple[_Kind, Matchers]]:
    """Yield the rules of a kind that headers alone decide, the highest priority first."""
    for rule in rules:
        if not isinstance(rule, kind) or rule.when != When():
            continue
        sources = {key: document.dimension_map.get(key, "") for key in rule.match}
        if all(source.startswith(HEADER) for source in sources.values()):
            yield rule, _matchers(rule.match, sources, tenant=document.tenant)


def _matchers(
    match: Mapping[str, Sequence[str]], sources: Mapping[str, str], *, tenant: str
) -> Matchers:
    """Return what the headers must be; a request that names no tenant is of the policy's own."""
    found: Matchers = {}
    for key, values in match.items():
        absent = [""] if key == "tenant" and tenant in values else []
        found[sources[key].removeprefix(HEADER).lower()] = [*values, *absent]
    return found


def _match(matchers: Sequence[Matchers]) -> wire.RouteMatch:
    headers = [
        wire.HeaderMatcher(
            name=header,
            string_match=wire.StringMatcher(safe_regex=wire.RegexMatcher(regex=_regex(values))),
            treat_missing_header_as_empty="" in values,
        )
        for found in matchers
        for header, values in found.items()
    ]
    return wire.RouteMatch(prefix="/", headers=headers)


def _regex(values: Sequence[str]) -> str:
    """Write the values of a selector as one expression that must match the whole header."""
    parts = [
        re.escape(value[:-1]) + ".*" if value.endswith("*") else re.escape(value)
        for value in values
    ]
    return "|".join(f"(?:{part})" for part in parts)


def _deny(rule: Deny, matchers: Matchers, policy: str) -> wire.Route:
    said = {
        "code": "policy_denied",
        "message": rule.reason[:MAX_REASON] or f"denied by rule {rule.id}",
        "rule": rule.id,
        "policy_generation": policy,
    }
    error = {"type": "rate_limit_error", **said}
    body = json.dumps({"type": "error", "error": error}, ensure_ascii=False)
    answer = wire.DirectResponseAction(status=rule.status, body=wire.DataSource(inline_string=body))
    headers = {"content-type": "application/json", POLICY_HEADER: policy, **REQUEST_NAME}
    made = wire.Route(
        name=f"deny:{rule.id}",
        match=_match([matchers]),
        direct_response=answer,
        response_headers_to_add=header_options(headers),
    )
    unasked = made.typed_per_filter_config[AUTHZ_FILTER]  # refused without asking anybody
    unasked.type_url = AUTHZ_TYPE
    unasked.value = wire.ExtAuthzPerRoute(disabled=True).SerializeToString()
    for name in (ADMISSION_FILTER, USAGE_FILTER):
        unasked = made.typed_per_filter_config[name]
        unasked.type_url = PROC_TYPE
        unasked.value = wire.ExtProcPerRoute(disabled=True).SerializeToString()
    return made


def _forward(
    throttle: Throttle | None,
    route: Route | None,
    *,
    matchers: Sequence[Matchers],
    document: PolicyDocument,
    cluster: str,
) -> wire.Route:
    names = [f"throttle:{throttle.id}"] if throttle else []
    names += [f"route:{route.id}"] if route else []
    made = wire.Route(
        name="+".join(names) or "default",
        match=_match(matchers),
        route=_action(route, document, cluster),
        response_headers_to_add=header_options({POLICY_HEADER: f"{document.epoch}.{document.gen}"}),
        request_headers_to_remove=OURS_TO_SAY,
    )
    if throttle:
        limit = made.typed_per_filter_config[RATE_LIMIT_FILTER]
        limit.type_url = RATE_LIMIT_TYPE
        policy = f"{document.epoch}.{document.gen}"
        limit.value = _rate_limit(throttle, policy).SerializeToString()
    return made


def _action(route: Route | None, document: PolicyDocument, cluster: str) -> wire.RouteAction:
    timeout = Duration()
    timeout.FromTimedelta(timedelta(0))  # a model may write for minutes: no limit on the whole
    if route is None:
        return wire.RouteAction(cluster=cluster, timeout=timeout)
    shares = wire.WeightedCluster()
    for name, weight in route.weights.items():
        share = shares.clusters.add(name=name)
        share.weight.value = weight
    action = wire.RouteAction(weighted_clusters=shares, timeout=timeout)
    source = document.dimension_map.get(route.sticky or "", "")
    if source.startswith(HEADER):
        action.weighted_clusters.use_hash_policy.value = True
        action.hash_policy.add().header.header_name = source.removeprefix(HEADER)
    return action


def _rate_limit(rule: Throttle, policy: str) -> Message:
    tokens, fill, interval = _bucket(rule)
    again = str(math.ceil(interval.total_seconds()))
    headers = {POLICY_HEADER: policy, "retry-after": again, **REQUEST_NAME}
    limit = wire.LocalRateLimit(
        stat_prefix=rule.id,
        status=wire.HttpStatus(code=TOO_MANY),
        token_bucket=wire.TokenBucket(max_tokens=tokens),
        filter_enabled=_always(),
        filter_enforced=_always(),
        response_headers_to_add=header_options(headers),
    )
    limit.token_bucket.tokens_per_fill.value = fill
    limit.token_bucket.fill_interval.FromTimedelta(interval)
    return limit


def _bucket(rule: Throttle) -> tuple[int, int, timedelta]:
    """Return size, refill and interval; Envoy fills at most every 50 ms.

    Requests per minute of the clock become as many at once and as many again a minute later.
    """
    if rule.rps is None:
        return rule.rpm or 1, rule.rpm or 1, timedelta(minutes=1)
    size = rule.burst or max(1, math.ceil(rule.rps))
    if rule.rps <= 1:
        return size, 1, timedelta(seconds=1 / rule.rps)
    return size, max(1, int(rule.rps)), timedelta(seconds=int(rule.rps) / rule.rps)


def _always() -> wire.RuntimeFractionalPercent:
    return wire.RuntimeFractionalPercent(default_value=wire.FractionalPercent(numerator=100))


def header_options(headers: Mapping[str, str]) -> list[wire.HeaderValueOption]:
    """Write headers that replace those of the same name."""
    return [
        wire.HeaderValueOption(
            header=wire.HeaderValue(key=name, value=value), append_action=OVERWRITE
        )
        for name, value in headers.items()
    ]
