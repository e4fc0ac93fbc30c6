"""The log in PostgreSQL, implementing :class:`relay.outbox.database.Database`."""
