"""Quotas of keys and users that spent too fast."""

import sqlalchemy as sa
from alembic import op

revision = "velocity_quotas"
down_revision = "rolling_forecasts"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "velocity_quota",
        sa.Column("scope", sa.Text, primary_key=True),
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("body", sa.Text, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("velocity_quota")
