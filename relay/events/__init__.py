"""The wire: one file per family of events, the registry in :mod:`relay.events.catalog`."""
