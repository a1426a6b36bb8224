"""How far each holder's requests have come, so that an answer that was lost is noticed."""

import sqlalchemy as sa
from alembic import op

revision = "lease_holders"
down_revision = "attribution"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "lease_holder",
        sa.Column("holder", sa.Text, primary_key=True),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("seen_at", sa.BigInteger, nullable=False),
    )
    op.create_index("lease_of_holder", "lease", ["holder", "state"])


def downgrade() -> None:
    op.drop_index("lease_of_holder", "lease")
    op.drop_table("lease_holder")
