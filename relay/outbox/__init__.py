"""The durable log: streams of appended events, and lanes, which are cursors into them."""
