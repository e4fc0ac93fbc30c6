"""Delivery from the log to the URLs: lease lanes, send, decide, commit."""
