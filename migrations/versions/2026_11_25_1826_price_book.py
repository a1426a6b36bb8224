"""The price book: versions, and the entries that each appended; nothing is ever changed."""

import sqlalchemy as sa
from alembic import op

revision = "price_book"
down_revision = "alerts"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "price_version",
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("recorded_at", sa.BigInteger, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("recorded_by", sa.Text, nullable=False),
    )
    op.create_table(
        "price_entry",
        sa.Column("version", sa.Integer, sa.ForeignKey("price_version.version"), primary_key=True),
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("body", sa.Text),
    )


def downgrade() -> None:
    for table in ("price_entry", "price_version"):
        op.drop_table(table)
