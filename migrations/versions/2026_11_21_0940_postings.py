"""Which settlement versions the ledger has, and calls that wait for their agent's settle."""

import sqlalchemy as sa
from alembic import op

revision = "postings"
down_revision = "leases"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "call_posting",
        sa.Column("version", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("posted_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "waiting_call",
        sa.Column("call_id", sa.Text, primary_key=True),
        sa.Column("budget_id", sa.Text, sa.ForeignKey("budget.id"), primary_key=True),
        sa.Column("window_start", sa.BigInteger, nullable=False),
        sa.Column("minute", sa.BigInteger, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("cost_nusd", sa.BigInteger, nullable=False),
        sa.Column("due_at", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_waiting_call_due_at", "waiting_call", ["due_at"])


def downgrade() -> None:
    for table in ("waiting_call", "call_posting"):
        op.drop_table(table)
