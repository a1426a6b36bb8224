"""What re-rates move has a line of its own in the ledger."""

import sqlalchemy as sa
from alembic import op

revision = "restated"
down_revision = "exchange_rates"
branch_labels = None
depends_on = None

TABLES = ("ledger_entry", "ledger_balance")


def upgrade() -> None:
    for table in TABLES:
        op.add_column(
            table, sa.Column("restated_nusd", sa.BigInteger, nullable=False, server_default="0")
        )


def downgrade() -> None:
    for table in TABLES:
        op.drop_column(table, "restated_nusd")
