"""The durable log: streams that are appended to, lanes that are cursors into them."""
