"""Dated exchange rates: appended to, never changed."""

import sqlalchemy as sa
from alembic import op

revision = "exchange_rates"
down_revision = "policy_key_sets"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "exchange_rate",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("currency", sa.Text, nullable=False, index=True),
        sa.Column("day", sa.Text, nullable=False),
        sa.Column("usd_per_unit", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("recorded_at", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("exchange_rate")
