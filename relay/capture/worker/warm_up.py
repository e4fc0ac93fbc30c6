"""Runs a job process's first-time event loop work once, in the fork server, and ends what ``preload_begin`` began.

All of it is safe to fork from: it leaves no thread, no event loop and no connection behind.
"""

import gc

from livekit.agents.utils import http_context

# A job's HTTP session loads the certificate authorities: 30 ms, and 250 on a busy machine. Every job makes one, if only
# to close it at its end. A private name, checked by tests/unit/test_livekit_registration.py.
http_context._create_ssl_context()  # noqa: SLF001

# For the jobs. What was imported is exempt from collection first: otherwise it would be walked here once, and again by
# the framework's own freeze, 0.3 s for two thousand of 300,000 objects.
gc.freeze()
gc.enable()
