"""Who changed a budget, when, and what of it."""

import sqlalchemy as sa
from alembic import op

revision = "budget_edits"
down_revision = "ledger_entry_at"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "budget_edit",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("budget_id", sa.Text, sa.ForeignKey("budget.id"), nullable=False, index=True),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("author", sa.Text, nullable=False),
        sa.Column("author_id", sa.Text, nullable=False),
        sa.Column("before", sa.Text),
        sa.Column("after", sa.Text, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("budget_edit")
