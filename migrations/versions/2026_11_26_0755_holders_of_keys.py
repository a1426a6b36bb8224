"""Whose a holder and a node are."""

import sqlalchemy as sa
from alembic import op

revision = "holders_of_keys"
down_revision = "velocity_quotas"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("lease_holder") as table:
        table.add_column(sa.Column("key_id", sa.Text, nullable=False, server_default=""))
    with op.batch_alter_table("node_state") as table:
        table.add_column(sa.Column("tenants", sa.Text))


def downgrade() -> None:
    with op.batch_alter_table("node_state") as table:
        table.drop_column("tenants")
    with op.batch_alter_table("lease_holder") as table:
        table.drop_column("key_id")
