"""Alert states, and the outbox that they fill in the same transaction."""

import sqlalchemy as sa
from alembic import op

revision = "alerts"
down_revision = "policy"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "alert",
        sa.Column("fingerprint", sa.Text, primary_key=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("since", sa.BigInteger, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("receiver", sa.Text, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("verdict", sa.Text),
        sa.Column("detail", sa.Text),
        sa.Column("next_attempt", sa.BigInteger, nullable=False),
    )
    op.create_index("outbox_due", "outbox", ["verdict", "next_attempt"])


def downgrade() -> None:
    op.drop_index("outbox_due", "outbox")
    for table in ("outbox", "alert"):
        op.drop_table(table)
