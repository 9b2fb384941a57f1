"""Runs the migrations: one at a time over all processes, and never waiting long for a lock."""

from __future__ import annotations

from alembic import context
from sqlalchemy import create_engine, text

from app.models import Base

ADVISORY_LOCK = 0xBE27  # any number that nothing else in this database uses


def run() -> None:
    """Upgrade or downgrade the database whose address the caller put into the configuration."""
    url = context.config.get_main_option("sqlalchemy.url")
    assert url, "migrations run through app.schema, which sets the address"
    engine = create_engine(url)
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": ADVISORY_LOCK})
        connection.execute(text("SET lock_timeout = '4s'"))
        connection.commit()
        context.configure(connection=connection, target_metadata=Base.metadata, compare_type=True)
        with context.begin_transaction():
            context.run_migrations()
    engine.dispose()


run()
