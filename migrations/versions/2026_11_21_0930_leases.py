"""Leases that holders have, and the holds that were settled from them."""

import sqlalchemy as sa
from alembic import op

revision = "leases"
down_revision = "ledger"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "lease",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("budget_id", sa.Text, sa.ForeignKey("budget.id"), nullable=False),
        sa.Column("window_start", sa.BigInteger, nullable=False),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("amount_nusd", sa.BigInteger, nullable=False),
        sa.Column("open_nusd", sa.BigInteger, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("granted_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("sweep_at", sa.BigInteger, nullable=False),
    )
    op.create_index("lease_to_sweep", "lease", ["state", "sweep_at"])
    op.create_index(
        "lease_of_window", "lease", ["budget_id", "window_start", "state", "expires_at"]
    )
    op.create_table(
        "settled_hold",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("held_nusd", sa.BigInteger, nullable=False),
        sa.Column("started_at", sa.BigInteger, nullable=False),
        sa.Column("settled_at", sa.BigInteger, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("response_id", sa.Text),
        sa.Column("call_id", sa.Text),
    )
    op.create_index("ix_settled_hold_response_id", "settled_hold", ["response_id"])
    op.create_index("ix_settled_hold_call_id", "settled_hold", ["call_id"])
    op.create_table(
        "hold_line",
        sa.Column("hold_id", sa.Text, sa.ForeignKey("settled_hold.id"), primary_key=True),
        sa.Column("budget_id", sa.Text, sa.ForeignKey("budget.id"), primary_key=True),
        sa.Column("window_start", sa.BigInteger, nullable=False),
        sa.Column("lease_id", sa.Text, nullable=False),
        sa.Column("enforced_nusd", sa.BigInteger, nullable=False),
        sa.Column("unproven_nusd", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    for table in ("hold_line", "settled_hold", "lease"):
        op.drop_table(table)
