"""Which timeline the ledger is on, and until when it recovers."""

import sqlalchemy as sa
from alembic import op

revision = "ledger_timeline"
down_revision = "restated"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "ledger_timeline",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("timeline", sa.Text, nullable=False),
        sa.Column("recovering_until", sa.BigInteger),
        sa.Column("is_announced", sa.Boolean, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("ledger_timeline")
