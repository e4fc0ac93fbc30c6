"""Imported by the fork server once: does what every job process would do for the first time on its event loop.

All of it is safe to fork from: it leaves no thread behind, no event loop, no connection.
"""

from livekit.agents.utils import http_context

# A job's HTTP session reads the certificate authorities for it: 30 ms, and 250 on a busy machine. Every job makes one,
# if only to close it at its end. A private name, which tests/unit/test_livekit_registration.py looks after.
http_context._create_ssl_context()  # noqa: SLF001
