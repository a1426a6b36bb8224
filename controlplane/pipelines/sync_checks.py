"""What a sync may say: anything else would break the ledger or the span store for everybody."""

import re
from collections.abc import Mapping, Sized
from datetime import UTC, datetime
from typing import Final

import msgspec

from controlplane.auth.principal import Principal
from controlplane.budgets.budget import Budget
from controlplane.core.errors import (
    ConflictError,
    ForbiddenError,
    InvalidInputError,
    LimitExceededError,
)
from controlplane.policy.wire import LAST_SEQ, MAX_SYNC_ITEMS, RefusedCalls, Settle, SyncRequest

MAX_GENERATION: Final = 2**31 - 1
"""Largest number that the generation columns hold."""
MAX_HOLD_NUSD: Final = 10**15
"""A million USD: no call costs more, and thousands of them still fit a balance."""
MAX_HOLD_ID: Final = 200
MAX_CALLS: Final = 2**53
MAX_CAPABILITIES: Final = 100
MAX_BUDGETS_OF_A_CALL: Final = 1_000
MAX_BUCKETS: Final = 100
MAX_DIMENSIONS: Final = 100
MAX_NAME: Final = 300
"""Characters of a node, a holder or a scope: a host's name has up to 253."""
MAX_REASON: Final = 10_000
"""Characters that are kept of why a generation is refused."""
MAX_AGO_SECONDS: Final = 10 * 366 * 86_400.0
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
EARLIEST: Final = datetime(1970, 1, 2, tzinfo=UTC)
LATEST: Final = datetime(2500, 1, 1, tzinfo=UTC)
"""What every calendar, database and dashboard can still name, with room for windows and waits."""


def check_request(request: SyncRequest) -> None:
    """Check everything but whose budgets are named.

    Raises:
        LimitExceededError: too many items.
        InvalidInputError: a value that no node can mean.
    """
    _check_sizes(request)
    _check_node(request)
    applied = request.applied
    if applied and not (
        0 <= applied.epoch <= MAX_GENERATION and 0 <= applied.gen <= MAX_GENERATION
    ):
        raise InvalidInputError("applied", f"{applied.etag()} is no generation")
    if request.applied_sha256 is not None and not _SHA256.fullmatch(request.applied_sha256):
        raise InvalidInputError("applied_sha256", "is no SHA-256 in hexadecimal")
    if min(request.counts.admitted, request.counts.refused, request.counts.errors) < 0:
        raise InvalidInputError("counts", "has a negative number")
    for settle in request.settle:
        _check_settle(settle)
    for refused in request.refused:
        _check_refused(refused)


def _check_sizes(request: SyncRequest) -> None:
    for name in ("settle", "want", "returns", "leases", "refused"):
        _at_most(name, MAX_SYNC_ITEMS, getattr(request, name), fix="Say the rest in the next sync")
    _at_most("capabilities", MAX_CAPABILITIES, request.capabilities, fix="Name each once")
    for settle in request.settle:
        for name, most, fix in (
            ("leases", MAX_BUDGETS_OF_A_CALL, "Fewer budgets may match one call"),
            ("held", MAX_BUDGETS_OF_A_CALL, "Name the budgets of `leases`"),
            ("usage", MAX_BUCKETS, "Name buckets of the registry"),
            ("dimensions", MAX_DIMENSIONS, "Send those that budgets and reports use"),
        ):
            _at_most(f"settle.{name}", most, getattr(settle, name), fix=fix)


def _at_most(field: str, most: int, items: Sized | None, *, fix: str) -> None:
    if items is not None and len(items) > most:
        raise LimitExceededError(field, most, len(items), hint=fix)


def _check_node(request: SyncRequest) -> None:
    for name in ("node", "boot_id", "scope"):
        size = len(getattr(request, name))
        if not 0 < size <= MAX_NAME:
            raise InvalidInputError(name, f"has {size} characters", f"Give 1 to {MAX_NAME}")
    if any(len(one) > MAX_HOLD_ID for one in request.capabilities):
        raise InvalidInputError("capabilities", "has a long name", f"At most {MAX_HOLD_ID}")
    if not 0 <= request.seq <= LAST_SEQ:
        raise InvalidInputError("seq", f"is not 0 to {LAST_SEQ}", "Count requests from 1")
    if not abs(request.applied_ago_seconds) <= MAX_AGO_SECONDS:
        raise InvalidInputError("applied_ago_seconds", "is no age", "Give seconds")


def _check_refused(refused: RefusedCalls) -> None:
    names = (refused.code, refused.budget_id, refused.rule, refused.tenant)
    if not 0 < refused.calls < MAX_CALLS or max(map(len, names)) > MAX_HOLD_ID:
        raise InvalidInputError(
            "refused", f"is not 1 to {MAX_CALLS} calls, or has a name of over {MAX_HOLD_ID}"
        )
    for at in (refused.hour, refused.last_at):
        if at.tzinfo is None or not EARLIEST <= at < LATEST:
            raise InvalidInputError("refused", "has no offset, or is no time of a call")


def told_refusals(
    request: SyncRequest, caller: Principal, budgets: dict[str, Budget]
) -> list[RefusedCalls]:
    """Return the refusals that the caller may tell of, each with whose calls they were.

    A budget that is stopped, and a tenant that is another's or not said, are left out.
    """
    told = []
    for one in request.refused:
        budget = budgets.get(one.budget_id)
        tenant = budget.tenant if budget else "" if one.budget_id else one.tenant
        if tenant and caller.may_see(tenant):
            told.append(msgspec.structs.replace(one, tenant=tenant))
    return told


def _check_settle(settle: Settle) -> None:
    """Refuse what would break the ledger or the span store for everybody."""
    if not 0 < len(settle.hold_id) <= MAX_HOLD_ID:
        raise InvalidInputError(
            "settle.hold_id", f"has {len(settle.hold_id)} characters", f"Give 1 to {MAX_HOLD_ID}"
        )
    if not all(0 <= held <= MAX_HOLD_NUSD for held in (settle.held_nusd, *settle.held.values())):
        raise InvalidInputError(
            "settle.held_nusd", f"is not 0 to {MAX_HOLD_NUSD}", "A hold is what a call may cost"
        )
    for name in ("started_at", "ended_at"):
        at: datetime = getattr(settle, name)
        if at.tzinfo is None or not EARLIEST <= at < LATEST:
            raise InvalidInputError(
                f"settle.{name}",
                "has no offset, or is no time of a call",
                f"Give RFC 3339 with an offset, {EARLIEST:%Y} to {LATEST:%Y}",
            )


def check_tenants(request: SyncRequest, caller: Principal, budgets: dict[str, Budget]) -> None:
    """Check that the caller may see the budgets named.

    Raises:
        ForbiddenError: one is another tenant's.
    """
    for budget_id in sorted(named_budgets(request)):
        budget = budgets.get(budget_id)
        if budget is not None and not caller.may_see(budget.tenant):
            raise ForbiddenError(f"access to the budget {budget_id!r}")


def check_holder(request: SyncRequest, caller: Principal, owners: Mapping[str, str]) -> None:
    """Check that a holder is the caller's; what is left of a dead one a new key may report.

    Raises:
        ConflictError: it is another key's.
    """
    owner = owners.get(request.boot_id, caller.id)
    is_last = request.seq == LAST_SEQ and not request.want and not request.refused
    if owner != caller.id and not is_last:
        raise ConflictError(
            f"boot_id: {request.boot_id[:MAX_HOLD_ID]!r} is in use with another key. "
            "Take a new boot_id with a new key"
        )


def named_budgets(request: SyncRequest) -> set[str]:
    """Return the budgets that a request speaks of."""
    named = {want.budget_id for want in request.want}
    return named.union(*(settle.leases for settle in request.settle))
