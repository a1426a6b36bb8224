"""Run by Alembic; the connection and its transaction are the caller's (store/metadata/migrate.py)."""

from alembic import context
from sqlalchemy import text

connection = context.config.attributes["connection"]
if connection.dialect.name == "postgresql":
    # A migration that waits for a lock makes everybody behind it wait: give up and try again.
    connection.execute(text("SET LOCAL lock_timeout = '4s'"))
    connection.execute(text("SET LOCAL statement_timeout = '5s'"))
context.configure(connection=connection, target_metadata=None)
context.run_migrations()
