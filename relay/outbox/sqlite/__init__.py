"""The log in a SQLite file, behind :class:`relay.outbox.database.Database`."""
