"""The log in a SQLite file, implementing :class:`relay.outbox.database.Database`."""
