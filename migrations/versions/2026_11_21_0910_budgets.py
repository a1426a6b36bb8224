"""Budgets; what can be asked for is a column, the rest is one JSON document."""

import sqlalchemy as sa
from alembic import op

revision = "budgets"
down_revision = "principals"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "budget",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("limit_nusd", sa.BigInteger, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("archived_at", sa.BigInteger),
    )
    op.create_index("ix_budget_tenant", "budget", ["tenant"])


def downgrade() -> None:
    op.drop_table("budget")
