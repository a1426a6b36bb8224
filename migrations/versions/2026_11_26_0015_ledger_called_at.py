"""When the calls were that a ledger entry counts: late ones are where they belong."""

import sqlalchemy as sa
from alembic import op

revision = "ledger_called_at"
down_revision = "budget_edits"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("ledger_entry", sa.Column("called_at", sa.BigInteger))
    op.create_index("ledger_entry_called_at", "ledger_entry", ["budget_id", "called_at"])


def downgrade() -> None:
    op.drop_index("ledger_entry_called_at", "ledger_entry")
    op.drop_column("ledger_entry", "called_at")
