"""Settlement said row by row, from algorithms C1-C6 alone: what the shipped one must answer."""

from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import combinations, pairwise, product
from typing import Any

NATIVE = "com.anthropic.sdk.python"
INSTRUMENTOR = "opentelemetry.instrumentation.anthropic"
FRAMEWORK = "openinference.instrumentation.langchain"
DEPTH = {
    NATIVE: 0,
    INSTRUMENTOR: 1,
    "opentelemetry.instrumentation.openai.v1": 1,
    FRAMEWORK: 2,
    "litellm": 2,
    "sglang server": 2,
}
ORDER = ["proxy", "agent", "client", "engine"]

Row = dict[str, Any]
Fits = Callable[[Row, Row], bool]


def identity(row: Row) -> tuple[Any, ...]:
    return (row["start_time"], row["trace_hi"], row["trace_lo"], row["span_id"], row["domain"])


def last_words(rows: list[Row]) -> list[Row]:
    def finality(row: Row) -> tuple[Any, ...]:
        tokens = (row["input_tokens"] or 0) + (row["output_tokens"] or 0)
        exact = row["usage_state"] == "exact"
        return (row["duration_us"] > 0, exact, tokens, row["duration_us"], row["content_hash"])

    identities = sorted({identity(row) for row in rows})
    return [max((r for r in rows if identity(r) == i), key=finality) for i in identities]


def other_layer(a: Row, b: Row) -> bool:
    known = "unknown" not in {a["key_role"], b["key_role"]}
    return bool(a["layer"] != b["layer"] or (known and a["key_role"] != b["key_role"]))


def one_trace(a: Row, b: Row) -> bool:
    return all(a[name] == b[name] for name in ("domain", "trace_hi", "trace_lo"))


def stacked(a: Row, b: Row) -> bool:
    """Two client libraries that may report one call."""
    if {a["layer"], b["layer"]} != {"client"} or a["scope_name"] == b["scope_name"]:
        return False
    same_id = a["response_id"] is not None and a["response_id"] == b["response_id"]
    deeper = DEPTH[a["scope_name"]] != DEPTH[b["scope_name"]]
    if one_trace(a, b):
        return same_id or deeper
    return same_id and deeper and a["domain"] == b["domain"] and near(a, b)


def is_half(row: Row) -> bool:
    """A failure that an SDK or its instrumentor reports, without an id."""
    failed = row["status"] == "error" and not row["response_id"]
    return bool(failed and row["layer"] == "client" and DEPTH[row["scope_name"]] < 2)


def pairs_of_failures(reports: list[Row]) -> list[tuple[Row, Row]]:
    """Each SDK's failure, in order of start, with the first-ending instrumentor's around it."""
    outers = [r for r in reports if is_half(r) and DEPTH[r["scope_name"]] == 1]
    inners = [r for r in reports if is_half(r) and DEPTH[r["scope_name"]] == 0]
    pairs = []
    for inner in sorted(inners, key=identity):
        around = [
            outer
            for outer in outers
            if (outer["domain"], outer["key_id"]) == (inner["domain"], inner["key_id"])
            and outer["service_name"] == inner["service_name"]
            and outer["tenant"] == inner["tenant"]
            and outer["start_time"].replace(second=0) == inner["start_time"].replace(second=0)
            and outer["start_time"] <= inner["start_time"]
            and inner["start_time"] - outer["start_time"] <= timedelta(seconds=1)
            and end(inner) <= end(outer)
            and not one_trace(outer, inner)
            and (
                outer["billing_model"] == inner["billing_model"]
                or None in (outer["billing_model"], inner["billing_model"])
            )
        ]
        if around:
            tightest = min(around, key=lambda row: (end(row), identity(row)))
            outers.remove(tightest)
            pairs.append((tightest, inner))
    return pairs


def is_long(value: str) -> bool:
    """Eight characters beside a vendor's prefix, which is letters and a dash."""
    prefix, dash, rest = value.partition("-")
    return len(rest if dash and prefix.isalpha() and len(prefix) <= 12 else value) >= 8


def asked_for(row: Row) -> int:
    """How many samples an engine's span says were asked for."""
    return int(dict(row["attributes"] or ()).get("gen_ai.request.n", 0))


def parent_of(row: Row, spans: list[Row]) -> int:
    own = [s for s in spans if one_trace(s, row) and s["span_id"] == row["span_id"]]
    return max((s["parent_span_id"] for s in own), default=0)


def same_request(a: Row, b: Row, spans: list[Row]) -> bool:
    """Two samples that one engine made of one prompt."""
    names = ("domain", "tenant", "key_id", "service_name", "scope_name", "response_id")
    same = all(a[name] == b[name] for name in (*names, "start_time", "input_tokens"))
    if not same or not (a["layer"] == b["layer"] == "engine" and a["response_id"]):
        return False
    if asked_for(a) > 1 and asked_for(b) > 1:
        return True
    above = parent_of(a, spans), parent_of(b, spans)
    if one_trace(a, b):
        return above[0] == above[1] != 0
    reports = last_words([row for row in spans if row["report_kind"] == "call"])
    callers = [
        (row["layer"], row["scope_name"])
        for row in reports
        if row["layer"] != "engine"
        and (row["domain"], row["response_id"]) == (a["domain"], a["response_id"])
    ]
    named = is_long(a["response_id"])
    return above == (0, 0) and named and len(callers) == len(set(callers))


def requests_of(reports: list[Row], spans: list[Row]) -> list[list[Row]]:
    """Each sample with the first of its request; one that is none begins another request."""
    requests: list[list[Row]] = []
    for row in sorted(reports, key=identity):
        names = ("domain", "tenant", "key_id", "service_name", "scope_name", "response_id", "layer")
        mates = [r for r in requests if all(r[0][name] == row[name] for name in names)]
        if mates and same_request(mates[-1][0], row, spans):
            mates[-1].append(row)
        else:
            requests.append([row])
    return requests


def end(row: Row) -> datetime:
    return row["start_time"] + timedelta(microseconds=row["duration_us"])  # type: ignore[no-any-return]  # rows are dicts of Any


def near(a: Row, b: Row) -> bool:
    """Near as accounted, or as their emitters said."""
    return near_at(a, b) or near_at(as_said(a), as_said(b))


def as_said(row: Row) -> Row:
    ahead = timedelta(microseconds=row["clock_ahead_us"] or 0)
    return {**row, "start_time": row["start_time"] + ahead}


def near_at(a: Row, b: Row) -> bool:
    if "agent" in {a["layer"], b["layer"]}:
        gap = max(a["start_time"], b["start_time"]) - min(end(a), end(b))
        return bool(gap <= timedelta(minutes=1))
    overlap = max(a["start_time"], b["start_time"]) < min(end(a), end(b))
    return bool(overlap or abs(a["start_time"] - b["start_time"]) <= timedelta(minutes=1))


def id_joins(a: Row, b: Row, name: str) -> bool:
    if not a[name] or a[name] != b[name] or a["domain"] != b["domain"]:
        return False
    if not is_long(a[name]):
        return False
    if other_layer(a, b):
        return one_trace(a, b) or near(a, b)
    return stacked(a, b)


def nearest_report_above(row: Row, spans: list[Row], reports: list[Row]) -> Row | None:
    """The closest ancestor that is a report; reports that share a span id are one node."""
    here, seen = row["span_id"], 0
    while seen < 64:
        seen += 1
        parents = [s["parent_span_id"] for s in spans if one_trace(s, row) and s["span_id"] == here]
        here = max(parents, default=0)
        if not here:
            return None
        found = [r for r in reports if one_trace(r, row) and r["span_id"] == here]
        if found:
            return found[-1] if found[-1] is not row else None
    return None


def wrapped(above: Row, row: Row) -> bool:
    if above["response_id"] and row["response_id"] and above["response_id"] != row["response_id"]:
        return False
    if other_layer(above, row):
        return True
    if {above["layer"], row["layer"]} != {"client"}:
        return False
    return DEPTH[above["scope_name"]] > DEPTH[row["scope_name"]]


def beside(a: Row, b: Row) -> bool:
    if not one_trace(a, b) or {a["layer"], b["layer"]} != {"client"}:
        return False
    if {DEPTH[a["scope_name"]], DEPTH[b["scope_name"]]} != {0, 1}:
        return False
    if a["status"] != b["status"] or (a["response_id"] and b["response_id"]):
        return False
    outer, inner = sorted((a, b), key=lambda row: row["start_time"])
    return bool(outer["start_time"] == inner["start_time"] or end(inner) <= end(outer))


def possible_joins(spans: list[Row], reports: list[Row]) -> list[tuple[Any, ...]]:
    """Every (sort key, report, report), strongest first."""
    joins: list[tuple[int, Row, Row]] = [(4, *pair) for pair in pairs_of_failures(reports)]
    requests = requests_of(reports, spans)
    joins += [(-1, a, b) for request in requests for a, b in pairwise(request)]
    for a, b in combinations(reports, 2):
        if abs(a["start_time"] - b["start_time"]) > timedelta(hours=24):
            continue
        for strength, name in enumerate(("gateway_call_id", "response_id")):
            if id_joins(a, b, name):
                joins.append((strength, a, b))
        if beside(a, b):
            joins.append((3, a, b))
    for row in reports:
        above = nearest_report_above(row, spans, reports)
        close = above and abs(above["start_time"] - row["start_time"]) <= timedelta(hours=24)
        if above and close and wrapped(above, row):
            joins.append((2, above, row))
    keyed = []
    for strength, a, b in joins:
        low, high = sorted((a, b), key=identity)
        apart = high["start_time"] - low["start_time"]
        tokens = [(r["input_tokens"] or 0) + (r["output_tokens"] or 0) for r in (a, b)]
        both = a["usage_state"] == b["usage_state"] == "exact"
        wrong = (
            (a["status"] != b["status"])
            + (both and tokens[0] != tokens[1])
            + (a["billing_model"] != b["billing_model"])
        )
        key = (strength, not one_trace(a, b), wrong, -apart if strength == 2 else apart)
        keyed.append(((*key, identity(low), identity(high)), low, high))
    return sorted(keyed, key=lambda join: join[0])


def overstates(row: Row, sdk: Row) -> bool:
    """This instrumentor adds a stream's first tokens again; the SDK of its process knows better."""
    names = ("service_name", "key_id", "input_tokens")
    tokens = [(r["input_tokens"] or 0) + (r["output_tokens"] or 0) for r in (row, sdk)]
    return (
        (row["scope_name"], sdk["scope_name"]) == (INSTRUMENTOR, NATIVE)
        and all(row[name] == sdk[name] for name in names)
        and tokens[0] - tokens[1] <= 16
    )


def is_around_several(
    row: Row, rows: list[Row], reports: list[Row], calls: list[list[Row]]
) -> bool:
    """Whether calls of lower libraries, two at least, were made inside this client's span."""
    made = [
        number
        for number, call in enumerate(calls)
        for one in call
        if one["usage_state"] == "exact"
        and {row["layer"], one["layer"]} == {"client"}
        and DEPTH[row["scope_name"]] > DEPTH[one["scope_name"]]
        and nearest_report_above(one, rows, reports) is row
    ]
    return len(set(made)) > 1


def billing_report(call: list[Row]) -> Row:
    def order(row: Row) -> tuple[Any, ...]:
        known = row["key_role"] != "unknown"
        place = row["key_role"] if known else row["layer"]
        details = ("cached_input_tokens", "cache_creation_input_tokens", "reasoning_tokens")
        said = sum(row[name] is not None for name in details)
        return (
            row["usage_state"] != "exact",
            not known,
            ORDER.index(place),
            -said,
            DEPTH[row["scope_name"]],
            identity(row),
        )

    ranked = sorted(call, key=order)
    best = ranked[0]
    if best["key_role"] != "unknown" or best["cost_state"] != "priced":
        return best
    for row in ranked[1:]:
        equal = row["billing_model"] == ranked[0]["billing_model"]
        dearer = (row["cost_nusd"] or 0) > (best["cost_nusd"] or 0)
        if equal and row["usage_state"] == "exact" and dearer and not overstates(row, ranked[0]):
            best = row
    return best


def may_share(a: Row, b: Row, requests: list[list[Row]]) -> bool:
    """Whether two reports may ever be one call."""
    if other_layer(a, b) or stacked(a, b) or any(a in one and b in one for one in requests):
        return True
    depths = {DEPTH[a["scope_name"]], DEPTH[b["scope_name"]]}
    apart = a["domain"] == b["domain"] and not one_trace(a, b)
    return bool(is_half(a) and is_half(b) and depths == {0, 1} and apart)


def by_gateway(row: Row) -> bool:
    return "proxy" in {row["layer"], row["key_role"]}


def speaker_of(call: list[Row]) -> Row | None:
    """Who speaks for a call that only a gateway, or only its client, told of."""
    sides = [
        [row for row in call if by_gateway(row)],
        [row for row in call if row["layer"] == "client" and not by_gateway(row)],
    ]
    told = [row for row in sides[0] or sides[1] if row["gateway"] is not None]
    return billing_report(told) if told and not all(sides) else None


def alike(row: Row) -> tuple[Any, ...]:
    usage = [row[name] or 0 for name in ("input_tokens", "output_tokens")]
    return (row["domain"], row["gateway"], row["billing_model"], row["status"], *usage)


def may_be_answered(client: Row, proxy: Row) -> bool:
    second = timedelta(seconds=1)
    ids = [is_long(row["response_id"] or "") for row in (client, proxy)]
    in_time = client["start_time"] - second <= proxy["start_time"] <= end(client) + second
    return in_time and not all(ids)


def matches(clients: list[Row], proxies: list[Row], fits: Fits) -> list[tuple[Row, Row]]:
    """The k-th with the k-th; if that leaves more than need be, those that end first."""
    ways = []
    for order in (identity, lambda row: (end(row), identity(row))):
        left = sorted(clients, key=order)
        pairs: list[tuple[Row, Row]] = []
        for proxy in sorted(proxies, key=identity):
            fitting = [client for client in left if fits(client, proxy)]
            if fitting:
                left.remove(fitting[0])
                pairs.append((fitting[0], proxy))
        ways.append(pairs)
    return max(ways, key=len)


def gateway_joins(calls: list[list[Row]], fits: Fits) -> list[tuple[Row, Row]]:
    minute, second = timedelta(minutes=1), timedelta(seconds=1)
    spoken = [row for call in calls if (row := speaker_of(call)) is not None]
    joined: list[tuple[Row, Row]] = []
    for group in {alike(row) for row in spoken}:
        mates = [row for row in spoken if alike(row) == group]
        first = min(row["start_time"] for row in mates).replace(second=0, microsecond=0)

        def in_minute(row: Row, first: datetime = first) -> int:
            moved = row["start_time"] + (second if by_gateway(row) else timedelta(0))
            return int((moved - first) // minute)

        def side(n: int, *, gateway: bool, mates: list[Row] = mates) -> list[Row]:
            used = [row for pair in joined for row in pair]  # noqa: B023 - as it is by then
            return [
                row
                for row in mates
                if in_minute(row) == n and by_gateway(row) is gateway and row not in used
            ]

        minutes = range(max(map(in_minute, mates)) + 2)
        for n in minutes:
            joined += matches(side(n, gateway=False), side(n, gateway=True), fits)
        for n in minutes:
            joined += matches(side(n, gateway=False), side(n + 1, gateway=True), fits)
    return joined


def reference(rows: list[Row]) -> set[tuple[tuple[Any, ...], frozenset[tuple[Any, ...]]]]:
    """Calls as (identity that bills, identities of all members)."""
    reports = last_words([row for row in rows if row["report_kind"] == "call"])
    calls = [[row] for row in reports]
    requests = requests_of(reports, rows)
    for _, a, b in possible_joins(rows, reports):
        ours = next(call for call in calls if a in call)
        theirs = next(call for call in calls if b in call)
        if ours is theirs:
            continue
        if all(may_share(x, y, requests) for x in ours for y in theirs):
            calls.remove(theirs)
            ours += theirs

    def call_of(row: Row) -> list[Row]:
        return next(call for call in calls if row in call)

    def fits(client: Row, proxy: Row) -> bool:
        pairs = product(call_of(client), call_of(proxy))
        return may_be_answered(client, proxy) and all(may_share(x, y, requests) for x, y in pairs)

    for client, proxy in gateway_joins(calls, fits):
        theirs = call_of(proxy)
        calls.remove(theirs)
        call_of(client).extend(theirs)

    def bills(call: list[Row]) -> Row:
        inner = [row for row in call if not is_around_several(row, rows, reports, calls)]
        return billing_report(inner or call)

    return {(identity(bills(call)), frozenset(identity(row) for row in call)) for call in calls}
