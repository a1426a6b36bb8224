"""What keys say of all they ingest, and the versions of the attribution rules."""

import sqlalchemy as sa
from alembic import op

revision = "attribution"
down_revision = "finance"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("api_key", sa.Column("dimensions", sa.Text, nullable=False, server_default="{}"))
    op.create_table(
        "attribution_version",
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("recorded_at", sa.BigInteger, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("recorded_by", sa.Text, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("attribution_version")
    op.drop_column("api_key", "dimensions")
