"""Rolling budgets without the forecast thresholds that they never told of."""

import json

import sqlalchemy as sa
from alembic import op

revision = "rolling_forecasts"
down_revision = "refused_calls"
branch_labels = None
depends_on = None

budget = sa.table("budget", sa.column("id", sa.Text), sa.column("body", sa.Text))


def upgrade() -> None:
    connection = op.get_bind()
    for budget_id, text in connection.execute(sa.select(budget.c.id, budget.c.body)).all():
        body = json.loads(text)
        if body.get("window_kind") == "rolling" and body.get("forecast_thresholds") != []:
            body["forecast_thresholds"] = []
            told = sa.update(budget).where(budget.c.id == budget_id)
            connection.execute(told.values(body=json.dumps(body)))


def downgrade() -> None:
    """What was there was never told of."""
