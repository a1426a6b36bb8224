"""Who changed a policy and why, staged roll-outs, proposals, and what nodes count."""

import sqlalchemy as sa
from alembic import op

revision = "policy_changes"
down_revision = "price_book"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Keys made before could pull any scope, and their proxies go on; new ones name theirs.
    op.add_column(
        "api_key", sa.Column("policy_scopes", sa.Text, nullable=False, server_default='["*"]')
    )
    for name in ("author", "author_id", "message"):
        op.add_column(
            "policy_generation", sa.Column(name, sa.Text, nullable=False, server_default="")
        )
    op.add_column(
        "policy_generation", sa.Column("cause", sa.Text, nullable=False, server_default="budgets")
    )
    op.add_column("policy_generation", sa.Column("rules", sa.Text))
    op.execute("""
        UPDATE policy_generation SET rules = (
          SELECT body FROM policy_rules WHERE policy_rules.scope = policy_generation.scope
        )
        WHERE NOT EXISTS (
          SELECT 1 FROM policy_generation AS newer
          WHERE newer.scope = policy_generation.scope
            AND (newer.epoch > policy_generation.epoch
              OR (newer.epoch = policy_generation.epoch AND newer.gen > policy_generation.gen))
        )
    """)
    op.add_column("node_state", sa.Column("applied_sha256", sa.Text))
    op.add_column("node_state", sa.Column("counts", sa.Text, nullable=False, server_default="{}"))
    op.create_table(
        "policy_rollout",
        sa.Column("scope", sa.Text, primary_key=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
    )
    op.create_table(
        "policy_proposal",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("scope", sa.Text, nullable=False, index=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("policy_proposal")
    op.drop_table("policy_rollout")
    for name in ("counts", "applied_sha256"):
        op.drop_column("node_state", name)
    for name in ("rules", "cause", "message", "author_id", "author"):
        op.drop_column("policy_generation", name)
    op.drop_column("api_key", "policy_scopes")
