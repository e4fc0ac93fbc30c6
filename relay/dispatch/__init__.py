"""From the log to the URLs: leases lanes, sends, decides, settles."""
