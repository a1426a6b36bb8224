"""Re-rates asked for, previewed and applied: what pins a window of calls to a price version."""

import sqlalchemy as sa
from alembic import op

revision = "rerate_runs"
down_revision = "policy_changes"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "rerate_run",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("window_start", sa.BigInteger, nullable=False),
        sa.Column("window_end", sa.BigInteger, nullable=False),
        sa.Column("tenants", sa.Text, nullable=False),
        sa.Column("price_version", sa.Integer, nullable=False),
        sa.Column("asked_by", sa.Text, nullable=False),
        sa.Column("asked_at", sa.BigInteger, nullable=False),
        sa.Column("done_at", sa.BigInteger),
        sa.Column("report", sa.Text),
    )
    op.create_index("rerate_by_state", "rerate_run", ["state", "asked_at"])


def downgrade() -> None:
    op.drop_index("rerate_by_state", "rerate_run")
    op.drop_table("rerate_run")
