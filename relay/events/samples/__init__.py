"""One sample of every event type, used in the documentation and by ``trigger``."""

from collections.abc import Mapping
from types import MappingProxyType

from relay.events.envelope import Event
from relay.events.samples.operator import told_to_operators
from relay.events.samples.realtime import heard_by_a_model
from relay.events.samples.room import overlapping
from relay.events.samples.stream import spoken

SAMPLES: Mapping[str, Event] = MappingProxyType(spoken() | heard_by_a_model() | overlapping() | told_to_operators())
"""Type name → a sample event, from one short call in which Alice says "Hello world." while Bob speaks."""
