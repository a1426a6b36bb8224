"""Daily numbers of the business, and reconciliations that somebody recorded."""

import sqlalchemy as sa
from alembic import op

revision = "finance"
down_revision = "gpu_pools"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "business_metric",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("day", sa.Text, primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("recorded_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "reconciliation",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("tenants", sa.Text, nullable=False),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("start", sa.BigInteger, nullable=False),
        sa.Column("end", sa.BigInteger, nullable=False),
        sa.Column("recorded_at", sa.BigInteger, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
    )


def downgrade() -> None:
    for table in ("reconciliation", "business_metric"):
        op.drop_table(table)
