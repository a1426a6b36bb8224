"""What a sync may say: anything else would break the ledger or the span store for everybody."""

import re
from datetime import UTC, datetime
from typing import Final

import msgspec

from controlplane.auth.principal import Principal
from controlplane.budgets.budget import Budget
from controlplane.core.errors import ForbiddenError, InvalidInputError, LimitExceededError
from controlplane.policy.wire import MAX_SYNC_ITEMS, RefusedCalls, Settle, SyncRequest

MAX_GENERATION: Final = 2**31 - 1
"""Largest number that the generation columns hold."""
MAX_HOLD_NUSD: Final = 10**15
"""A million USD: no call costs more, and thousands of them still fit a balance."""
MAX_HOLD_ID: Final = 200
MAX_CALLS: Final = 2**53
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
    for name in ("settle", "want", "returns", "leases", "refused"):
        size = len(getattr(request, name) or ())
        if size > MAX_SYNC_ITEMS:
            raise LimitExceededError(f"{name} of a sync", MAX_SYNC_ITEMS, size)
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


def named_budgets(request: SyncRequest) -> set[str]:
    """Return the budgets that a request speaks of."""
    named = {want.budget_id for want in request.want}
    return named.union(*(settle.leases for settle in request.settle))
