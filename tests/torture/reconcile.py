"""The log and the endpoints, held against each other event by event."""

import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from tests.torture.receivers import Endpoint

Ask = Callable[[str], Iterable[Any]]
"""Returns the rows of a query to the log."""
Lane = tuple[str, str]
"""Endpoint and stream."""


@dataclass(frozen=True)
class Unsettled:
    """What had been taken by an endpoint when the dispatcher was killed, and of which the log did not know it yet."""

    events: frozenset[tuple[str, int]]
    """Each with how often it had been taken: one that stays unsettled over several kills may come again only once."""
    most_of_a_lane: tuple[str, ...]
    """Durable ones, of the lane with most of them."""


@dataclass
class Account:
    """One endpoint's."""

    endpoint: str
    events: int = 0
    delivered: int = 0
    kept: int = 0
    """Not delivered, and in the log to be sent."""
    parked: int = 0
    """Of those kept: put aside."""
    dead: int = 0
    requests: int = 0
    duplicates: int = 0
    allowed: int = 0
    """How many duplicates the kills account for."""
    most_a_kill: int = 0
    """How many a single kill left unsettled."""
    passed_on: int = 0
    """Events that were put aside at some time, so that later ones went before them."""
    faults: list[str] = field(default_factory=list)


def unsettled(database: Path, endpoints: Iterable[Endpoint]) -> dict[str, Unsettled]:
    """To be asked while no dispatcher lives."""
    with closing(sqlite3.connect(database)) as log:
        cursors = {(endpoint, stream): cursor for endpoint, stream, cursor in log.execute(_CURSORS)}
        parked = set(log.execute(_PARKED))
        interims = {event for (event,) in log.execute("SELECT id FROM events WHERE delivery = 'latest'")}
    found: dict[str, Unsettled] = {}
    for endpoint in endpoints:
        pending = [event for event in endpoint.taken if _number(event) > cursors.get(_lane(endpoint, event), 0)]
        aside = [event for event in endpoint.taken if (endpoint.name, event) in parked]
        # an interim that a former kill left so is passed over, which is written down with the next event only
        lanes: dict[Lane, list[str]] = defaultdict(list)
        for event in pending:
            if event not in interims:
                lanes[_lane(endpoint, event)].append(event)
        events = frozenset((event, endpoint.taken[event]) for event in pending + aside)
        found[endpoint.name] = Unsettled(events, max(map(tuple, lanes.values()), key=len, default=()))
    return found


def reconcile(
    database: Path, endpoints: Iterable[Endpoint], kills: Iterable[dict[str, Unsettled]], acknowledged: dict[str, int]
) -> list[Account]:
    """One account each. Its ``faults`` say everything that must not be."""
    with closing(sqlite3.connect(database)) as log:
        return reconcile_log(log.execute, endpoints, kills, acknowledged)


def reconcile_log(
    ask: Ask, endpoints: Iterable[Endpoint], kills: Iterable[dict[str, Unsettled]], acknowledged: dict[str, int]
) -> list[Account]:
    """As :func:`reconcile`, of a log in any database."""
    kills = list(kills)
    cursors = {(endpoint, stream): cursor for endpoint, stream, cursor in ask(_CURSORS)}
    durable: dict[str, list[int]] = defaultdict(list)
    for stream, sequence in ask(_DURABLE):
        durable[stream].append(sequence)
    ends = dict(ask("SELECT id, last_sequence FROM streams"))
    parked, dead = set(ask(_PARKED)), set(ask(_DEAD))
    passed_on = {
        (notice["endpoint"], notice["event_id"])
        for (body,) in ask("SELECT body FROM events WHERE type = 'delivery.parked'")
        if (notice := json.loads(body)["data"])
    }
    accounts = []
    for endpoint in endpoints:
        account = Account(endpoint.name, requests=len(endpoint.came))
        accounts.append(account)
        for stream, last in acknowledged.items():
            if ends.get(stream, 0) < last:
                account.faults.append(f"{stream}: {last} events were acknowledged, the log has {ends.get(stream)}")
        for (name, stream), cursor in cursors.items():
            if name != endpoint.name:
                continue
            for sequence in durable[stream]:
                event = f"evt_{stream.removeprefix('str_')}_{sequence}"
                account.events += 1
                account.passed_on += (name, event) in passed_on
                if event in endpoint.taken:
                    account.delivered += 1
                elif (name, event) in dead:
                    account.dead += 1
                elif (name, event) in parked:
                    account.kept += 1
                    account.parked += 1
                elif sequence > cursor:
                    account.kept += 1
                else:
                    account.faults.append(f"lost: {event}")
        _check_order(endpoint, passed_on, account)
        _check_duplicates(endpoint, [kill[endpoint.name] for kill in kills], account)
        account.faults += [f"other bytes on another attempt: {event}" for event in endpoint.altered]
    return accounts


def table(accounts: Iterable[Account]) -> str:
    """A line for each, for people."""
    names = [column.name for column in fields(Account) if column.name != "faults"]
    rows = [[name.replace("_", " ") for name in names]]
    rows += [[str(getattr(one, name)) for name in names] for one in accounts]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.rjust, row, widths)) for row in rows)


def _check_order(endpoint: Endpoint, passed_on: set[tuple[str, str]], account: Account) -> None:
    """On each lane no request goes back behind an earlier one, but for events that the log says were put aside."""
    heads: dict[Lane, int] = {}
    for event, _ in endpoint.came:
        if (endpoint.name, event) in passed_on:
            continue
        lane, sequence = _lane(endpoint, event), _number(event)
        if sequence < heads.get(lane, 0):
            account.faults.append(f"out of order: {event} came after {heads[lane]}")
        heads[lane] = max(sequence, heads.get(lane, 0))


def _check_duplicates(endpoint: Endpoint, kills: list[Unsettled], account: Account) -> None:
    """An event comes again only if a kill left it unsettled, once for each; and one a lane can be left so."""
    known: set[tuple[str, int]] = set()
    for kill in kills:
        account.most_a_kill = max(account.most_a_kill, len(kill.events - known))
        known |= kill.events
    allowed = Counter(event for event, _ in known)
    account.allowed = len(known)
    for event, count in endpoint.taken.items():
        account.duplicates += count - 1
        if count - 1 > allowed[event]:
            account.faults.append(f"{event} came {count} times, {allowed[event]} kills account for it")
    for kill in kills:
        if len(kill.most_of_a_lane) > 1:
            came = [
                event for event, _ in endpoint.came if _lane(endpoint, event) == _lane(endpoint, kill.most_of_a_lane[0])
            ]
            account.faults.append(f"a kill left {kill.most_of_a_lane} of one lane unsettled, of which came {came}")


def _lane(endpoint: Endpoint, event: str) -> Lane:
    return endpoint.name, f"str_{event.split('_')[1]}"


def _number(event: str) -> int:
    return int(event.split("_")[2])


_CURSORS = "SELECT l.endpoint, s.id, l.cursor FROM lanes l JOIN streams s USING (sid)"
_DURABLE = "SELECT s.id, e.sequence FROM events e JOIN streams s USING (sid) WHERE e.delivery = 'durable'"
_EVENT = "SELECT l.endpoint, e.id FROM {} p JOIN lanes l USING (lane) JOIN events e USING (sid, sequence)"
_PARKED, _DEAD = _EVENT.format("parked"), _EVENT.format("dead_letters")
