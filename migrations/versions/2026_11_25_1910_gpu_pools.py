"""GPU pools that were made through the API."""

import sqlalchemy as sa
from alembic import op

revision = "gpu_pools"
down_revision = "rerate_runs"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "gpu_pool",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("changed_by", sa.Text, nullable=False),
        sa.Column("changed_at", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("gpu_pool")
