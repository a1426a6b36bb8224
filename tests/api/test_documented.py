"""`deploy/docs/api.md` has the routes and roles that there are, and no others."""

import re
from pathlib import Path
from typing import Any

from controlplane.auth.roles import ROLE_SCOPES, Role, Scope

DOC = (Path(__file__).parents[2] / "deploy" / "docs" / "api.md").read_text()
PREFIX = "/api/v1"
VERBS = ("GET", "POST", "PUT", "PATCH", "DELETE")


def shape(path: str) -> str:
    """Return a path without its prefix and the names of its parameters."""
    return re.sub(r"\{[^}]+\}", "{}", path.removeprefix(PREFIX))


def documented() -> list[set[tuple[str, str]]]:
    """Return for each verb and path that is named, as `GET /x` or `PUT /x[/{y}]`, what it may mean."""
    found, verbs = [], []
    for span in re.findall(r"`([^`\n]+)`", DOC):
        if span in VERBS:  # as in "`GET`, `PUT /x`"
            verbs.append(span)
        elif named := re.match(
            rf"({'|'.join(VERBS)}) (/[^\s?]*?)(?:\[(/[^]]+)\])?(?:[?\s]|$)", span
        ):
            verb, path, more = named.groups()
            paths = {shape(path), shape(path + (more or ""))}
            found += [{(each, way) for way in paths} for each in (*verbs, verb)]
            verbs = []
    return found


def test_every_route_is_in_the_table_and_every_route_of_the_table_exists(api: Any) -> None:
    """The one document for people and the one for machines name the same."""
    served = {
        (verb.upper(), shape(path))
        for path, verbs in api.schema["paths"].items()
        for verb in verbs
        if verb.upper() in VERBS
    }
    told = documented()
    assert len(served) > 80
    assert [] == sorted(served - set[tuple[str, str]]().union(*told))
    assert [] == [sorted(ways) for ways in told if not ways & served]


def test_the_table_of_roles_is_the_matrix() -> None:
    """What a role may do, as an administrator reads it."""
    rows = dict(re.findall(r"^\| (\w+) \| (.+) \|$", DOC.split("## Tables")[0], re.MULTILINE))
    read = re.search(r"^Read is (.+)\.$", DOC, re.MULTILINE)
    assert read
    rows["read"] = read[1]
    scopes = {name: set(re.findall(r"`([a-z]+:[a-z]+)`", row)) for name, row in rows.items()}
    for role, granted in ROLE_SCOPES.items():
        row = scopes[role.value]
        if role is Role.ADMIN:
            assert set(Scope) - granted == row
        else:
            assert granted == row | (
                scopes["read"] if rows[role.value].startswith("read") else set()
            )
    assert {role.value for role in Role} == rows.keys() - {"role", "read"}
