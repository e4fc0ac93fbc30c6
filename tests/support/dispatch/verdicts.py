"""Decisions about an event in order, beside a healthy endpoint, unless a test says otherwise."""

import random
from functools import partial

from relay.dispatch import policy
from relay.dispatch.policy import REST_MS, Blame

decide = partial(
    policy.decide,
    failing_since=None,
    parks=False,
    best_effort=False,
    blame=Blame.EVENT,
    rest_ms=REST_MS,
    dice=random.random,
)
