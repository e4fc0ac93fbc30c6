"""Alembic's entry: runs the migrations on the given connection, in its transaction."""

from alembic import context

from relay.outbox.schema import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA)
with context.begin_transaction():
    context.run_migrations()
