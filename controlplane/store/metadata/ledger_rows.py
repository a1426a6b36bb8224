"""The ledger's rows: every crossing between the domain and its tables, and the two upserts."""

from typing import Final

from sqlalchemy import Row, text

from controlplane.budgets.hold import ChargeReason, HoldLine, SettledHold
from controlplane.budgets.lease import Lease, LeaseState
from controlplane.budgets.ledger import Amounts, Entry, WindowKey
from controlplane.budgets.posting import WaitingCall
from controlplane.store.metadata.budgets import ACCOUNTS
from controlplane.store.metadata.tables import UtcMicros

CARRY_FORWARD: Final = text("""
    INSERT INTO ledger_balance
      (budget_id, window_start, enforced_nusd, unproven_nusd, unenforced_nusd, leased_nusd,
       restated_nusd)
    VALUES
      (:budget_id, :window_start, :enforced_nusd, :unproven_nusd, :unenforced_nusd, :leased_nusd,
       :restated_nusd)
    ON CONFLICT (budget_id, window_start) DO UPDATE SET
      enforced_nusd = ledger_balance.enforced_nusd + excluded.enforced_nusd,
      unproven_nusd = ledger_balance.unproven_nusd + excluded.unproven_nusd,
      unenforced_nusd = ledger_balance.unenforced_nusd + excluded.unenforced_nusd,
      leased_nusd = ledger_balance.leased_nusd + excluded.leased_nusd,
      restated_nusd = ledger_balance.restated_nusd + excluded.restated_nusd
""")
ADVANCE_HOLDER: Final = text("""
    INSERT INTO lease_holder (holder, seq, seen_at, key_id)
    VALUES (:holder, :seq, :seen_at, :key_id)
    ON CONFLICT (holder) DO UPDATE SET
      seq = excluded.seq, seen_at = excluded.seen_at, key_id = excluded.key_id
    WHERE lease_holder.seq < excluded.seq AND lease_holder.key_id IN ('', excluded.key_id)
""")
SAVE_LEASE: Final = text("""
    INSERT INTO lease
      (id, budget_id, window_start, holder, amount_nusd, open_nusd, state,
       granted_at, expires_at, sweep_at)
    VALUES
      (:id, :budget_id, :window_start, :holder, :amount_nusd, :open_nusd, :state,
       :granted_at, :expires_at, :sweep_at)
    ON CONFLICT (id) DO UPDATE SET
      open_nusd = excluded.open_nusd, state = excluded.state, sweep_at = excluded.sweep_at
""")


def amounts_row(amounts: Amounts) -> dict[str, int]:
    """Cross to the account columns."""
    return {name: getattr(amounts, name) for name in ACCOUNTS}


def entry_row(entry: Entry) -> dict[str, object]:
    """Cross to the store."""
    return {
        "budget_id": entry.window.budget_id,
        "window_start": entry.window.start,
        "key": entry.key,
        "kind": entry.kind.value,
        "at": entry.at,
        "called_at": entry.called_at,
        **amounts_row(entry.change),
    }


def lease_row(one: Lease) -> dict[str, object]:
    """Cross to SAVE_LEASE."""
    return {
        "id": one.id,
        "budget_id": one.window.budget_id,
        "window_start": UtcMicros.to_micros(one.window.start),
        "holder": one.holder,
        "amount_nusd": one.amount_nusd,
        "open_nusd": one.open_nusd,
        "state": one.state.value,
        "granted_at": UtcMicros.to_micros(one.granted_at),
        "expires_at": UtcMicros.to_micros(one.expires_at),
        "sweep_at": UtcMicros.to_micros(one.sweep_at),
    }


def to_lease(row: Row[tuple[object, ...]]) -> Lease:
    """Cross from the store."""
    return Lease(
        id=row.id,
        window=WindowKey(row.budget_id, row.window_start),
        holder=row.holder,
        amount_nusd=row.amount_nusd,
        open_nusd=row.open_nusd,
        state=LeaseState(row.state),
        granted_at=row.granted_at,
        expires_at=row.expires_at,
        sweep_at=row.sweep_at,
    )


def line_row(hold_id: str, line: HoldLine) -> dict[str, object]:
    """Cross to the store."""
    return {
        "hold_id": hold_id,
        "budget_id": line.window.budget_id,
        "window_start": line.window.start,
        "lease_id": line.lease_id,
        "enforced_nusd": line.charge.enforced_nusd,
        "unproven_nusd": line.charge.unproven_nusd,
    }


def to_line(row: Row[tuple[object, ...]]) -> HoldLine:
    """Cross from the store."""
    return HoldLine(
        window=WindowKey(row.budget_id, row.window_start),
        lease_id=row.lease_id,
        charge=Amounts(enforced_nusd=row.enforced_nusd, unproven_nusd=row.unproven_nusd),
    )


def to_hold(row: Row[tuple[object, ...]], lines: list[HoldLine]) -> SettledHold:
    """Cross from the store."""
    return SettledHold(
        id=row.id,
        holder=row.holder,
        held_nusd=row.held_nusd,
        started_at=row.started_at,
        settled_at=row.settled_at,
        reason=ChargeReason(row.reason),
        response_id=row.response_id,
        call_id=row.call_id,
        lines=tuple(lines),
    )


def waiting_row(call: WaitingCall) -> dict[str, object]:
    """Cross to the store."""
    return {
        "call_id": call.call_id,
        "budget_id": call.window.budget_id,
        "window_start": call.window.start,
        "minute": call.minute,
        "version": call.version,
        "cost_nusd": call.cost_nusd,
        "due_at": call.due_at,
    }


def to_waiting(row: Row[tuple[object, ...]]) -> WaitingCall:
    """Cross from the store."""
    return WaitingCall(
        call_id=row.call_id,
        window=WindowKey(row.budget_id, row.window_start),
        minute=row.minute,
        version=row.version,
        cost_nusd=row.cost_nusd,
        due_at=row.due_at,
    )
