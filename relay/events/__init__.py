"""The wire format: one file per event family; :mod:`relay.events.catalog` is the registry."""
