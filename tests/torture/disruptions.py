"""The endpoints of the chaos, what was done to whom, and which duplicates that accounts for."""

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.torture.receivers import SOON, Endpoint
from tests.torture.reconcile import Unsettled

SLACK_S = 8.0
"""From a request's arrival until its result is in the log: another process that is frozen in a transaction keeps it
waiting for five seconds, and a busy machine for some more."""
TARGETS: Mapping[str, Mapping[str, Any]] = {
    "steady": {"retry": SOON},
    "strict": {"retry": {**SOON, "park_after": "0s"}, "order": "strict"},
    "flapping": {"retry": {**SOON, "park_after": "500ms"}, "breaker": None, "concurrency": 64},
    "single": {"retry": {**SOON, "park_after": "0s"}, "order": "strict", "concurrency": 1},
}
"""What config.yaml says of each, besides where it is."""


@dataclass
class Disruption:
    """What was done to a process, or to the database, and when. Times are of the monotonic clock."""

    what: str
    sender: str | None
    """The dispatcher; None for the database, which all of them use."""
    began: float
    ended: float
    explains: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How many duplicates of a lane it accounts for."""


@dataclass
class Target(Endpoint):
    """An endpoint that notes which dispatcher sent what."""

    taken_from: dict[str, list[tuple[float, str]]] = field(default_factory=dict)
    """When each event was taken, and from which dispatcher."""
    refused_from: dict[str, list[tuple[float, str]]] = field(default_factory=dict)
    in_flight: int = 0
    most_in_flight: int = 0

    @property
    def config(self) -> dict[str, Any]:
        return {**self._address, "timeout": "2s", **TARGETS[self.name]}

    async def _handle(self, request: web.Request) -> web.Response:
        came, event = time.monotonic(), request.headers["webhook-id"]
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        before = self.taken[event]
        try:
            return await super()._handle(request)
        finally:
            self.in_flight -= 1
            known = self.taken_from if self.taken[event] > before else self.refused_from
            known.setdefault(event, []).append((came, request.headers["x-dispatcher"]))


def explained(targets: Iterable[Target], disruptions: Iterable[Disruption]) -> list[dict[str, Unsettled]]:
    """The duplicates that a disruption accounts for, one of a lane for each, in the form of those of a kill.

    A parked event is sent beside its lane, and is one by itself.
    """
    found: dict[str, set[tuple[str, int]]] = {target.name: set() for target in targets}
    for target in targets:
        parked = _passed_by(target)
        for event, takings in target.taken_from.items():
            lane = target.name, event if event in parked else event.split("_")[1]
            for number, (at, sender) in enumerate(takings[:-1], 1):
                for one in disruptions:
                    concerns = one.sender in (None, sender) and one.began - SLACK_S <= at <= one.ended + SLACK_S
                    if concerns and not one.explains[lane]:
                        one.explains[lane] += 1
                        found[target.name].add((event, number))
                        break
    return [{name: Unsettled(frozenset(events), ()) for name, events in found.items()}]


def _passed_by(target: Target) -> set[str]:
    """The events that were taken after a later one of their lane."""
    newest: Counter[str] = Counter()
    found: set[str] = set()
    for event, taken in target.came:
        _, lane, number = event.split("_")
        if taken and int(number) < newest[lane]:
            found.add(event)
        elif taken:
            newest[lane] = int(number)
    return found


@contextmanager
def noted(disruptions: list[Disruption], what: str, sender: str | None) -> Iterator[None]:
    """Note a disruption that lasts as long as the body."""
    began = time.monotonic()
    try:
        yield
    finally:
        disruptions.append(Disruption(what, sender, began, time.monotonic()))


def took_over_s(targets: Iterable[Target], cut: Disruption) -> float:
    """How long it took until the last stream of this dispatcher that went on was sent by another one."""
    longest = 0.0
    for target in targets:
        takings: dict[str, list[tuple[float, str]]] = defaultdict(list)
        for event, each in target.taken_from.items():
            takings[event.split("_")[1]] += each
        for lane in takings.values():
            before = [sender for at, sender in sorted(lane) if at < cut.began]
            after = [at for at, sender in lane if cut.began < at <= cut.ended and sender != cut.sender]
            if before and before[-1] == cut.sender and after:
                longest = max(longest, min(after) - cut.began)
    return longest
