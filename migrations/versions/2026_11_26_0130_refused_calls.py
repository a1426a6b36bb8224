"""Calls that agents refused, per hour and reason."""

import sqlalchemy as sa
from alembic import op

revision = "refused_calls"
down_revision = "ledger_called_at"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "refused_calls",
        sa.Column("hour", sa.BigInteger, primary_key=True),
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("budget_id", sa.Text, primary_key=True),
        sa.Column("rule", sa.Text, primary_key=True),
        sa.Column("code", sa.Text, primary_key=True),
        sa.Column("boot_id", sa.Text, primary_key=True),
        sa.Column("calls", sa.BigInteger, nullable=False),
        sa.Column("last_at", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("refused_calls")
