"""Authored rules, signed generations, and what each node has applied."""

import sqlalchemy as sa
from alembic import op

revision = "policy"
down_revision = "postings"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "policy_generation",
        sa.Column("scope", sa.Text, primary_key=True),
        sa.Column("epoch", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("gen", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("signature", sa.Text, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("issued_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "policy_rules",
        sa.Column("scope", sa.Text, primary_key=True),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("changed_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "node_state",
        sa.Column("scope", sa.Text, primary_key=True),
        sa.Column("node", sa.Text, primary_key=True),
        sa.Column("boot_id", sa.Text, nullable=False),
        sa.Column("applied_epoch", sa.Integer),
        sa.Column("applied_gen", sa.Integer),
        sa.Column("nack", sa.Text),
        sa.Column("capabilities", sa.Text, nullable=False),
        sa.Column("seen_at", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    for table in ("node_state", "policy_rules", "policy_generation"):
        op.drop_table(table)
