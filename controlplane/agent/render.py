"""A policy as files for nginx and HAProxy: what headers alone decide; everything else needs an agent.

Deny rules, rates and weighted routes whose selectors are all read from headers. Values never reach
a file as they are written: every character that could mean something becomes an escape.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from controlplane.agent.disk import PolicyDisk
from controlplane.agent.settings import AgentSettings
from controlplane.core.errors import PolicyError
from controlplane.durable import replace_file
from controlplane.policy.bundle import Verifier, open_bundle
from controlplane.policy.document import Deny, PolicyDocument, Route, Throttle, When

HEADER: Final = "header."
PLAIN: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
MAX_COUNTERS: Final = 3
"""HAProxy tracks at most three counters a request."""
SEPARATOR: Final = "|"
_READABLE: Final = 0o644  # the proxy is another user

_Kind = TypeVar("_Kind", Deny, Throttle, Route)
Matchers = dict[str, str]
"""Header → the expression that its whole value must match."""


def rules_of(document: PolicyDocument, kind: type[_Kind]) -> Iterator[tuple[_Kind, Matchers]]:
    """Yield the rules of a kind that headers alone decide, the highest priority first."""
    for rule in sorted(document.rules, key=lambda each: -each.priority):
        if not isinstance(rule, kind) or rule.when != When():
            continue
        sources = {key: document.dimension_map.get(key, "") for key in rule.match}
        if all(source.startswith(HEADER) for source in sources.values()):
            yield rule, _matchers(rule.match, sources, document)


def _matchers(
    match: Mapping[str, Sequence[str]], sources: Mapping[str, str], document: PolicyDocument
) -> Matchers:
    found: Matchers = {}
    for key, values in match.items():
        absent = [""] if _is_own(key, values, document) else []
        found[sources[key].removeprefix(HEADER).lower()] = _expression([*values, *absent])
    return found


def _is_own(key: str, values: Sequence[str], document: PolicyDocument) -> bool:
    """Whether a request that names no tenant is meant, too: it is of the policy's own."""
    return key == "tenant" and bool(document.tenant) and document.tenant in values


def _expression(values: Sequence[str]) -> str:
    parts = [
        f"{_escaped(value[:-1])}.*" if value.endswith("*") else _escaped(value) for value in values
    ]
    return "(?:" + "|".join(parts) + ")"


def _escaped(text: str) -> str:
    return "".join(
        char if char in PLAIN else "".join(f"\\x{byte:02x}" for byte in char.encode())
        for char in text
    )


def _name(text: str) -> str:
    """Return a rule's id as a name that both programs take."""
    return "".join(char if char.isalnum() and char.isascii() else "_" for char in text)


def nginx_files(document: PolicyDocument, *, upstream: str) -> dict[str, str]:
    """Render for nginx: one file for the http block, one for a location.

    Args:
        document: the policy in force.
        upstream: where a request goes that no route rule chooses for.
    """
    http = [f"# policy {document.epoch}.{document.gen}; written by controlplane render"]
    denies = [*rules_of(document, Deny)]
    for rule, matchers in denies:
        http += _nginx_match(f"deny_{_name(rule.id)}", matchers)
    location = ["default_type application/json;", "limit_req_status 429;", "limit_conn_status 429;"]
    location += [f'add_header x-controlplane-policy "{document.epoch}.{document.gen}" always;']
    for rule, _ in denies:
        body = _nginx_quoted(json.dumps(denial(rule, document)))
        location.append(f"if ($cp_deny_{_name(rule.id)}) {{ return {rule.status} {body}; }}")
    for throttle, matchers in rules_of(document, Throttle):
        made = _nginx_limit(throttle, matchers)
        http += made[0]
        location += made[1]
    http += _nginx_routes(document, upstream)
    return {
        "controlplane-http.conf": "\n".join(http) + "\n",
        "controlplane-location.conf": "\n".join(location) + "\n",
    }


def _nginx_match(name: str, matchers: Matchers) -> list[str]:
    """Return maps that set `$cp_<name>` to 1 when every header matches, else to nothing."""
    lines, parts = [], []
    for number, (header, expression) in enumerate(sorted(matchers.items())):
        part = f"$cp_{name}_{number}"
        lines.append(
            f'map $http_{header.replace("-", "_")} {part} {{ default 0; "~^{expression}$" 1; }}'
        )
        parts.append(part)
    both = "".join(parts) or "1"
    lines.append(f'map "{both}" $cp_{name} {{ default ""; "{"1" * max(1, len(parts))}" 1; }}')
    return lines


def _nginx_limit(rule: Throttle, matchers: Matchers) -> tuple[list[str], list[str]]:
    name = f"limit_{_name(rule.id)}"
    http, location = _nginx_match(name, matchers), []
    if rule.rps is not None or rule.rpm is not None:
        per_minute = rule.rpm if rule.rps is None else max(1, round(rule.rps * 60))
        burst = rule.burst or max(1, math.ceil(rule.rps or rule.rpm or 1))
        http.append(f"limit_req_zone $cp_{name} zone=cp_{name}:32k rate={per_minute}r/m;")
        extra = f" burst={burst - 1}" if burst > 1 else ""
        location.append(f"limit_req zone=cp_{name}{extra} nodelay;")
    if rule.concurrency is not None:
        http.append(f"limit_conn_zone $cp_{name} zone=cp_{name}_c:32k;")
        location.append(f"limit_conn cp_{name}_c {rule.concurrency};")
    return http, location


def _nginx_routes(document: PolicyDocument, upstream: str) -> list[str]:
    lines, before = [], _nginx_quoted(upstream)
    for route, matchers in reversed([*rules_of(document, Route)]):
        name = f"route_{_name(route.id)}"
        lines += _nginx_match(name, matchers)
        source = document.dimension_map.get(route.sticky or "", "")
        unit = "$request_id"
        if source.startswith(HEADER):
            unit = f"$http_{source.removeprefix(HEADER).lower().replace('-', '_')}"
        lines.append(f'split_clients "{_name(route.id)}{unit}" $cp_{name}_to {{')
        lines += [f"  {share} {_nginx_quoted(to)};" for to, share in _shares(route.weights)]
        lines.append("}")
        lines.append(f"map $cp_{name} $cp_{name}_or {{ default {before}; 1 $cp_{name}_to; }}")
        before = f"$cp_{name}_or"
    return [*lines, f'map "" $controlplane_upstream {{ default {before}; }}']


def _shares(weights: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    whole = sum(weights.values())
    kept = [(name, weight) for name, weight in sorted(weights.items()) if weight]
    for name, weight in kept[:-1]:
        yield name, f"{weight * 100 / whole:.2f}%"
    yield kept[-1][0], "*"


def _nginx_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("$", "") + "'"


def haproxy_files(document: PolicyDocument, *, upstream: str) -> dict[str, str]:
    """Render for HAProxy: a named `defaults` section for frontends to inherit, and its maps.

    Args:
        document: the policy in force.
        upstream: the backend that a request goes to that no route rule chooses for.
    """
    denies, routes = [*rules_of(document, Deny)], [*rules_of(document, Route)]
    throttles = [
        (rule, found)
        for rule, found in rules_of(document, Throttle)
        if rule.rps is not None or rule.rpm is not None
    ][:MAX_COUNTERS]
    headers = sorted({name for _, found in (*denies, *routes, *throttles) for name in found})
    policy = f"{document.epoch}.{document.gen}"
    joined = "".join(f",concat(,txn.cp_h{n},{SEPARATOR})" for n in range(len(headers)))
    lines = [
        "defaults controlplane",
        "  mode http",
        "  timeout connect 5s",
        "  timeout client 15m",
        "  timeout server 15m",
        *(f"  http-request set-var(txn.cp_h{n}) req.hdr({h})" for n, h in enumerate(headers)),
        f"  http-request set-var(txn.cp) str({SEPARATOR}){joined}",
        f"  http-after-response set-header x-controlplane-policy {policy}",
    ]
    for rule, found in denies:
        body = json.dumps(denial(rule, document)).replace("\\", "\\\\").replace('"', '\\"')
        lines.append(
            f"  http-request deny deny_status {rule.status} content-type application/json "
            f'string "{body}" if {{ var(txn.cp) -m reg {_line(headers, found)} }}'
        )
    tables: list[str] = []
    for number, (limit, found) in enumerate(throttles):
        name = f"cp_limit_{_name(limit.id)}"
        period, most = ("1m", limit.rpm) if limit.rps is None else ("1s", limit.burst or limit.rps)
        tables += [
            f"backend {name}",
            f"  stick-table type integer size 2 expire 2m store http_req_rate({period})",
        ]
        condition = f"{{ var(txn.cp) -m reg {_line(headers, found)} }}"
        lines.append(f"  http-request track-sc{number} int(1) table {name} if {condition}")
        lines.append(
            f"  http-request deny deny_status 429 if {condition} "
            f"{{ sc{number}_http_req_rate gt {math.ceil(most or 1)} }}"
        )
    lines += _haproxy_routes(routes, headers, upstream)
    head = [f"# policy {policy}; written by controlplane render"]
    return {"controlplane.cfg": "\n".join(head + tables + lines) + "\n"}


def _haproxy_routes(
    routes: Sequence[tuple[Route, Matchers]], headers: Sequence[str], upstream: str
) -> list[str]:
    lines = [f"  http-request set-var(txn.cp_to) str({_name_of_backend(upstream)})"]
    for number, (route, found) in enumerate(reversed(routes)):
        condition = f"{{ var(txn.cp) -m reg {_line(headers, found)} }}"
        whole = sum(route.weights.values())
        lines.append(f"  http-request set-var(txn.cp_r{number}) rand({whole}) if {condition}")
        passed = 0
        for name, weight in sorted(route.weights.items()):
            if weight:
                lines.append(
                    f"  http-request set-var(txn.cp_to) str({_name_of_backend(name)}) if "
                    f"{condition} {{ var(txn.cp_r{number}) -m int ge {passed} }}"
                )
            passed += weight
    return lines


def _name_of_backend(text: str) -> str:
    return "".join(char if char in PLAIN or char in ".:" else "_" for char in text)


def _line(headers: Sequence[str], found: Matchers) -> str:
    """Return the expression over all headers in their order, each ended by the separator."""
    bar = f"\\x{ord(SEPARATOR):02x}"
    parts = (found.get(header, "[^" + bar + "]*") for header in headers)
    expression = "^" + bar + "".join(part + bar for part in parts) + "$"
    return expression.replace(
        "\\", "\\\\"
    )  # HAProxy reads escapes itself before the expression does


def denial(rule: Deny, document: PolicyDocument) -> dict[str, object]:
    """Return the body of a refusal."""
    error = {
        "type": "rate_limit_error",
        "code": "policy_denied",
        "message": rule.reason or f"denied by rule {rule.id}",
        "rule": rule.id,
        "policy_generation": f"{document.epoch}.{document.gen}",
    }
    return {"type": "error", "error": error}


RENDERERS: Final[dict[str, Callable[..., dict[str, str]]]] = {
    "nginx": nginx_files,
    "haproxy": haproxy_files,
}


def write_files(files: Mapping[str, str], folder: Path) -> list[Path]:
    """Replace files atomically, each whole or as it was; return those that changed."""
    folder.mkdir(parents=True, exist_ok=True)
    changed = []
    for name, content in files.items():
        path = folder / name
        if path.exists() and path.read_text(encoding="utf-8") == content:
            continue
        replace_file(path, content.encode(), mode=_READABLE)
        changed.append(path)
    return changed


def render_last_known_good(
    settings: AgentSettings, kind: str, folder: Path, *, upstream: str
) -> dict[str, Any]:
    """Write the policy that the agent of this machine keeps on disk, if its signature holds.

    Raises:
        PolicyError: there is none, or it is not what was signed.
    """
    stored = PolicyDisk(settings.state_dir, settings.scope).load()
    if stored is None:
        raise PolicyError("policy", f"none in {settings.state_dir}", "Start the agent first")
    document = open_bundle(stored.body, stored.signature, Verifier(settings.policy_keys))
    written = {rule.id for rule, _ in rules_of(document, Deny)}
    written |= {rule.id for rule, _ in rules_of(document, Throttle)}
    written |= {rule.id for rule, _ in rules_of(document, Route)}
    changed = write_files(RENDERERS[kind](document, upstream=upstream), folder)
    return {
        "policy": f"{document.epoch}.{document.gen}",
        "changed": [str(path) for path in changed],
        "left_to_an_agent": [rule.id for rule in document.rules if rule.id not in written],
    }
