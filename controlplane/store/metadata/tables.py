"""The metadata tables as the newest migration leaves them; a test holds the two together.

Money is BIGINT nano-USD. Time is BIGINT microseconds since 1970, UTC: exact and the same on both
engines. JSON is text that our own encoder wrote.
"""

from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.types import TypeDecorator, TypeEngine
from typing_extensions import override

from controlplane.core.instants import from_micros, to_micros


class UtcMicros(TypeDecorator[datetime]):
    """An aware datetime as microseconds since 1970."""

    impl: TypeEngine[Any] | type[TypeEngine[Any]] = BigInteger
    cache_ok: bool | None = True

    @staticmethod
    def to_micros(value: datetime) -> int:
        """Write an aware datetime as it is stored."""
        return to_micros(value)

    @override
    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        return None if value is None else self.to_micros(value)

    @override
    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        return None if value is None else from_micros(value)


metadata = MetaData()

api_key: Final = Table(
    "api_key",
    metadata,
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("tenant", Text, nullable=False),
    Column("all_tenants", Boolean, nullable=False),
    Column("domain", Text, nullable=False),
    Column("scopes", Text, nullable=False),
    Column("policy_scopes", Text, nullable=False, server_default='["*"]'),
    Column("secret_hash", LargeBinary, nullable=False),
    Column("tenant_map", Text),
    Column("created_at", UtcMicros, nullable=False),
    Column("expires_at", UtcMicros),
    Column("revoked_at", UtcMicros),
    Column("last_used_at", UtcMicros),
    Column("dimensions", Text, nullable=False, server_default="{}"),
)

attribution_version: Final = Table(
    "attribution_version",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("recorded_at", UtcMicros, nullable=False),
    Column("source", Text, nullable=False),
    Column("note", Text, nullable=False),
    Column("recorded_by", Text, nullable=False),
    Column("document", Text, nullable=False),
)

budget: Final = Table(
    "budget",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant", Text, nullable=False, index=True),
    Column("limit_nusd", BigInteger, nullable=False),
    Column("body", Text, nullable=False),
    Column("archived_at", UtcMicros),
)

budget_edit: Final = Table(
    "budget_edit",
    metadata,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("budget_id", Text, ForeignKey("budget.id"), nullable=False, index=True),
    Column("at", UtcMicros, nullable=False),
    Column("author", Text, nullable=False),
    Column("author_id", Text, nullable=False),
    Column("before", Text),
    Column("after", Text, nullable=False),
)

ledger_entry: Final = Table(
    "ledger_entry",
    metadata,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("budget_id", Text, ForeignKey("budget.id"), nullable=False),
    Column("window_start", UtcMicros, nullable=False),
    Column("key", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("at", UtcMicros, nullable=False),
    Column("enforced_nusd", BigInteger, nullable=False),
    Column("unproven_nusd", BigInteger, nullable=False),
    Column("unenforced_nusd", BigInteger, nullable=False),
    Column("leased_nusd", BigInteger, nullable=False),
    Column("restated_nusd", BigInteger, nullable=False, server_default="0"),
    Column("called_at", UtcMicros),
    UniqueConstraint("budget_id", "window_start", "key", name="ledger_entry_once"),
    Index("ledger_entry_at", "budget_id", "at"),
    Index("ledger_entry_called_at", "budget_id", "called_at"),
)

ledger_balance: Final = Table(
    "ledger_balance",
    metadata,
    Column("budget_id", Text, ForeignKey("budget.id"), primary_key=True),
    Column("window_start", UtcMicros, primary_key=True),
    Column("enforced_nusd", BigInteger, nullable=False),
    Column("unproven_nusd", BigInteger, nullable=False),
    Column("unenforced_nusd", BigInteger, nullable=False),
    Column("leased_nusd", BigInteger, nullable=False),
    Column("restated_nusd", BigInteger, nullable=False, server_default="0"),
)

ledger_timeline: Final = Table(
    "ledger_timeline",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("timeline", Text, nullable=False),
    Column("recovering_until", UtcMicros),
    Column("is_announced", Boolean, nullable=False),
)

lease: Final = Table(
    "lease",
    metadata,
    Column("id", Text, primary_key=True),
    Column("budget_id", Text, ForeignKey("budget.id"), nullable=False),
    Column("window_start", UtcMicros, nullable=False),
    Column("holder", Text, nullable=False),
    Column("amount_nusd", BigInteger, nullable=False),
    Column("open_nusd", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("granted_at", UtcMicros, nullable=False),
    Column("expires_at", UtcMicros, nullable=False),
    Column("sweep_at", UtcMicros, nullable=False),
    Index("lease_to_sweep", "state", "sweep_at"),
    Index("lease_of_window", "budget_id", "window_start", "state", "expires_at"),
    Index("lease_of_holder", "holder", "state"),
)

lease_holder: Final = Table(
    "lease_holder",
    metadata,
    Column("holder", Text, primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("seen_at", UtcMicros, nullable=False),
    Column("key_id", Text, nullable=False, server_default=""),
)

settled_hold: Final = Table(
    "settled_hold",
    metadata,
    Column("id", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("held_nusd", BigInteger, nullable=False),
    Column("started_at", UtcMicros, nullable=False),
    Column("settled_at", UtcMicros, nullable=False),
    Column("reason", Text, nullable=False),
    Column("response_id", Text, index=True),
    Column("call_id", Text, index=True),
)

hold_line: Final = Table(
    "hold_line",
    metadata,
    Column("hold_id", Text, ForeignKey("settled_hold.id"), primary_key=True),
    Column("budget_id", Text, ForeignKey("budget.id"), primary_key=True),
    Column("window_start", UtcMicros, nullable=False),
    Column("lease_id", Text, nullable=False),
    Column("enforced_nusd", BigInteger, nullable=False),
    Column("unproven_nusd", BigInteger, nullable=False),
)

call_posting: Final = Table(
    "call_posting",
    metadata,
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("posted_at", UtcMicros, nullable=False),
)

waiting_call: Final = Table(
    "waiting_call",
    metadata,
    Column("call_id", Text, primary_key=True),
    Column("budget_id", Text, ForeignKey("budget.id"), primary_key=True),
    Column("window_start", UtcMicros, nullable=False),
    Column("minute", UtcMicros, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("cost_nusd", BigInteger, nullable=False),
    Column("due_at", UtcMicros, nullable=False, index=True),
)

policy_generation: Final = Table(
    "policy_generation",
    metadata,
    Column("scope", Text, primary_key=True),
    Column("epoch", Integer, primary_key=True, autoincrement=False),
    Column("gen", Integer, primary_key=True, autoincrement=False),
    Column("body", LargeBinary, nullable=False),
    Column("signature", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("issued_at", UtcMicros, nullable=False),
    Column("author", Text, nullable=False, server_default=""),
    Column("author_id", Text, nullable=False, server_default=""),
    Column("message", Text, nullable=False, server_default=""),
    Column("cause", Text, nullable=False, server_default="budgets"),
    Column("rules", Text),
)

policy_rules: Final = Table(
    "policy_rules",
    metadata,
    Column("scope", Text, primary_key=True),
    Column("body", Text, nullable=False),
    Column("changed_at", UtcMicros, nullable=False),
)

node_state: Final = Table(
    "node_state",
    metadata,
    Column("scope", Text, primary_key=True),
    Column("node", Text, primary_key=True),
    Column("boot_id", Text, nullable=False),
    Column("applied_epoch", Integer),
    Column("applied_gen", Integer),
    Column("nack", Text),
    Column("capabilities", Text, nullable=False),
    Column("seen_at", UtcMicros, nullable=False),
    Column("applied_sha256", Text),
    Column("counts", Text, nullable=False, server_default="{}"),
    Column("tenants", Text),
)

refused_calls: Final = Table(
    "refused_calls",
    metadata,
    Column("hour", UtcMicros, primary_key=True),
    Column("tenant", Text, primary_key=True),
    Column("budget_id", Text, primary_key=True),
    Column("rule", Text, primary_key=True),
    Column("code", Text, primary_key=True),
    Column("boot_id", Text, primary_key=True),
    Column("calls", BigInteger, nullable=False),
    Column("last_at", UtcMicros, nullable=False),
)

policy_rollout: Final = Table(
    "policy_rollout",
    metadata,
    Column("scope", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("body", Text, nullable=False),
)

velocity_quota: Final = Table(
    "velocity_quota",
    metadata,
    Column("scope", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("body", Text, nullable=False),
)

policy_key_set: Final = Table(
    "policy_key_set",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("body", LargeBinary, nullable=False),
    Column("signature", Text, nullable=False),
)

policy_proposal: Final = Table(
    "policy_proposal",
    metadata,
    Column("id", Text, primary_key=True),
    Column("scope", Text, nullable=False, index=True),
    Column("state", Text, nullable=False),
    Column("created_at", UtcMicros, nullable=False),
    Column("body", Text, nullable=False),
)

alert: Final = Table(
    "alert",
    metadata,
    Column("fingerprint", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("since", UtcMicros, nullable=False),
    Column("body", Text, nullable=False),
)

outbox: Final = Table(
    "outbox",
    metadata,
    Column("id", Text, primary_key=True),
    Column("receiver", Text, nullable=False),
    Column("at", UtcMicros, nullable=False),
    Column("body", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("verdict", Text),
    Column("detail", Text),
    Column("next_attempt", UtcMicros, nullable=False),
    Index("outbox_due", "verdict", "next_attempt"),
)

business_metric: Final = Table(
    "business_metric",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("day", Text, primary_key=True),
    Column("value", Text, nullable=False),
    Column("recorded_at", UtcMicros, nullable=False),
)

reconciliation: Final = Table(
    "reconciliation",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenants", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("start", UtcMicros, nullable=False),
    Column("end", UtcMicros, nullable=False),
    Column("recorded_at", UtcMicros, nullable=False),
    Column("body", Text, nullable=False),
)

price_version: Final = Table(
    "price_version",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("recorded_at", UtcMicros, nullable=False),
    Column("source", Text, nullable=False),
    Column("note", Text, nullable=False),
    Column("recorded_by", Text, nullable=False),
)

price_entry: Final = Table(
    "price_entry",
    metadata,
    Column("version", Integer, ForeignKey("price_version.version"), primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("body", Text),
)

rerate_run: Final = Table(
    "rerate_run",
    metadata,
    Column("id", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("window_start", UtcMicros, nullable=False),
    Column("window_end", UtcMicros, nullable=False),
    Column("tenants", Text, nullable=False),
    Column("price_version", Integer, nullable=False),
    Column("asked_by", Text, nullable=False),
    Column("asked_at", UtcMicros, nullable=False),
    Column("done_at", UtcMicros),
    Column("report", Text),
    Index("rerate_by_state", "state", "asked_at"),
)

gpu_pool: Final = Table(
    "gpu_pool",
    metadata,
    Column("name", Text, primary_key=True),
    Column("body", Text, nullable=False),
    Column("changed_by", Text, nullable=False),
    Column("changed_at", UtcMicros, nullable=False),
)

exchange_rate: Final = Table(
    "exchange_rate",
    metadata,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("currency", Text, nullable=False, index=True),
    Column("day", Text, nullable=False),
    Column("usd_per_unit", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("recorded_at", UtcMicros, nullable=False),
)
