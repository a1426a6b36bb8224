"""Tenant scoping and the role matrix."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.auth.principal import Principal, PrincipalKind, visible_tenants
from controlplane.auth.roles import ROLE_SCOPES, Role, Scope, scopes_of
from controlplane.core.errors import ForbiddenError

names = st.sets(st.sampled_from("abcdef"))


def person(tenants: set[str], *, all_tenants: bool = False) -> Principal:
    return Principal(
        id="k",
        kind=PrincipalKind.USER,
        name="n",
        scopes=frozenset({Scope.COSTS_READ}),
        tenants=tuple(tenants),
        all_tenants=all_tenants,
    )


@given(own=names, known=names, wanted=names)
def test_nobody_is_ever_given_a_tenant_that_is_not_theirs(
    own: set[str], known: set[str], wanted: set[str]
) -> None:
    if wanted <= own:
        seen = visible_tenants(person(own), known=known, wanted=wanted)
        assert tuple(sorted(wanted or own)) == seen
    else:
        with pytest.raises(ForbiddenError):
            visible_tenants(person(own), known=known, wanted=wanted)


@given(known=names, wanted=names)
def test_an_operator_sees_what_is_known_and_may_narrow(known: set[str], wanted: set[str]) -> None:
    operator = person(set(), all_tenants=True)
    if wanted <= known:
        seen = visible_tenants(operator, known=known, wanted=wanted)
        assert tuple(sorted(wanted or known)) == seen
    else:
        with pytest.raises(ForbiddenError):
            visible_tenants(operator, known=known, wanted=wanted)


def test_a_refusal_names_the_scope_that_is_missing() -> None:
    person(set()).require(Scope.COSTS_READ)
    with pytest.raises(ForbiddenError, match="keys:admin"):
        person(set()).require(Scope.KEYS_ADMIN)


def test_duties_are_separated() -> None:
    """An auditor changes nothing; a proxy reads no costs; an admin does not pass for a proxy."""
    writes = {Scope.BUDGETS_WRITE, Scope.POLICY_WRITE, Scope.KEYS_ADMIN, Scope.ALERTS_ACK}
    assert not ROLE_SCOPES[Role.AUDITOR] & (writes | {Scope.SYNC, Scope.INGEST})
    assert not ROLE_SCOPES[Role.VIEWER] & writes
    assert not ROLE_SCOPES[Role.PROXY] & {Scope.COSTS_READ, Scope.CALLS_READ, *writes}
    assert not ROLE_SCOPES[Role.COLLECTOR] & {Scope.POLICY_PULL, Scope.COSTS_READ, *writes}
    assert Scope.SYNC not in ROLE_SCOPES[Role.ADMIN]
    assert set(Role) == set(ROLE_SCOPES)


def test_every_scope_belongs_to_a_role() -> None:
    assert frozenset(Scope) == scopes_of(tuple(Role))


def test_calls_may_hold_what_users_wrote_so_few_roles_see_them() -> None:
    seers = {role for role, scopes in ROLE_SCOPES.items() if Scope.CALLS_READ in scopes}
    assert {Role.ADMIN, Role.ENGINEERING_LEAD, Role.ON_CALL, Role.AUDITOR} == seers
