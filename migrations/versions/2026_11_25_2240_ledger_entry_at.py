"""What a budget has spent within the last hours."""

from alembic import op

revision = "ledger_entry_at"
down_revision = "ledger_timeline"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ledger_entry_at", "ledger_entry", ["budget_id", "at"])


def downgrade() -> None:
    op.drop_index("ledger_entry_at", "ledger_entry")
