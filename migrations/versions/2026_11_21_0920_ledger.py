"""The ledger: entries that nothing can change or remove, and balances carried forward."""

import sqlalchemy as sa
from alembic import op

revision = "ledger"
down_revision = "budgets"
branch_labels = None
depends_on = None

ACCOUNTS = ("enforced_nusd", "unproven_nusd", "unenforced_nusd", "leased_nusd")

SQLITE_REFUSES = """
CREATE TRIGGER ledger_entry_no_{verb} BEFORE {verb} ON ledger_entry
BEGIN SELECT RAISE(ABORT, 'ledger entries are immutable'); END
"""
POSTGRES_FUNCTION = """
CREATE FUNCTION ledger_entry_refuse() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'ledger entries are immutable'; END $$
"""
POSTGRES_REFUSES = """
CREATE TRIGGER ledger_entry_immutable BEFORE UPDATE OR DELETE ON ledger_entry
FOR EACH ROW EXECUTE FUNCTION ledger_entry_refuse()
"""


def accounts() -> list[sa.Column]:
    return [sa.Column(name, sa.BigInteger, nullable=False) for name in ACCOUNTS]


def upgrade() -> None:
    op.create_table(
        "ledger_entry",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("budget_id", sa.Text, sa.ForeignKey("budget.id"), nullable=False),
        sa.Column("window_start", sa.BigInteger, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        *accounts(),
        sa.UniqueConstraint("budget_id", "window_start", "key", name="ledger_entry_once"),
    )
    op.create_table(
        "ledger_balance",
        sa.Column("budget_id", sa.Text, sa.ForeignKey("budget.id"), primary_key=True),
        sa.Column("window_start", sa.BigInteger, primary_key=True),
        *accounts(),
    )
    if op.get_bind().dialect.name == "postgresql":
        op.execute(POSTGRES_FUNCTION)
        op.execute(POSTGRES_REFUSES)
    else:
        for verb in ("UPDATE", "DELETE"):
            op.execute(SQLITE_REFUSES.format(verb=verb))


def downgrade() -> None:
    op.drop_table("ledger_balance")
    op.drop_table("ledger_entry")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION ledger_entry_refuse()")
