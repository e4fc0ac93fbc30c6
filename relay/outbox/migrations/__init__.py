"""The migrations of the log's tables, run by :mod:`relay.outbox.upgrade`."""
