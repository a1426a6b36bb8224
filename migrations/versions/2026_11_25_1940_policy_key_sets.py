"""Sets of policy keys, as the offline root key signed them."""

import sqlalchemy as sa
from alembic import op

revision = "policy_key_sets"
down_revision = "lease_holders"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "policy_key_set",
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("signature", sa.Text, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("policy_key_set")
