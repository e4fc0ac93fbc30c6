"""Adjusts the schedule when the wall clock is set.

A dispatcher detects the change some moments later, and rows written meanwhile are mixed with older ones. Each kind of
time therefore has a rule that is right, or harmless, for both:

- *A lease* never ends early, which would take it from its holder: it moves along when the clock was set forward. It
  never lasts longer than leases do, so that a dead dispatcher's lanes are free soon after the clock was set back.
- *A retry time* in the future moves along, so that the wait keeps its length. One that was written after the clock was
  set forward stays.
- *What was due* is still due. So is a lane that waits though nothing has failed: an append made it due, at a time from
  a clock that was ahead.
- *A writer's lease* is cut to the normal length of such leases. A live writer renews it within that time.
- *Since when something fails, and when it failed last,* moves along with the clock, so that no endpoint or event is
  given up on for time that never passed. A time within the last seconds is left alone after the clock was set back: it
  may have been written since, and would then be too old by the whole change.
"""

import sqlalchemy as sa

from relay.outbox.schema import endpoints, lanes, parked, resends, writers

UNNOTICED_MS = 5_000
"""How long a jump may go undetected, on a busy machine too: a dispatcher checks every second."""


def shift(
    connection: sa.Connection, by_ms: int, *, beyond: int, now: int, lease_ms: int | None, writer_lease_ms: int
) -> None:
    """Follow a clock that was set from ``beyond`` by this much, and now reads ``now``.

    ``lease_ms`` is the maximum length of a lane's lease, None if unknown.
    """
    failed = lanes.c.attempts != 0
    every = sa.true()
    for table, written_at, waits in (
        (lanes, lanes.c.settled_at, failed),
        (parked, parked.c.parked_at, every),
        (resends, resends.c.asked_at, every),
    ):
        next_at, held = table.c.next_at, table.c.owner.is_not(None)
        if by_ms > 0:
            connection.execute(sa.update(table).where(held, next_at > beyond).values(next_at=next_at + by_ms))
        if lease_ms is not None:
            longest = now + lease_ms
            connection.execute(sa.update(table).where(held, next_at > longest).values(next_at=longest))
        due = ~held & (next_at > now) & (~waits | (next_at <= beyond))
        connection.execute(sa.update(table).where(due).values(next_at=now))
        ahead = ~held & waits & (next_at > beyond) & (written_at <= beyond)
        connection.execute(sa.update(table).where(ahead).values(next_at=next_at + by_ms))

    def noted_before(at: sa.Column[int]) -> sa.ColumnElement[bool]:
        before = at <= beyond
        return before & ~at.between(now - UNNOTICED_MS + 1, now) if by_ms < 0 else before

    failing = sa.update(lanes).where(failed, noted_before(lanes.c.failing_since))
    connection.execute(failing.values(failing_since=lanes.c.failing_since + by_ms))
    for table in (lanes, parked, resends):
        before = sa.update(table).where(noted_before(table.c.failed_at))
        connection.execute(before.values(failed_at=table.c.failed_at + by_ms))
    failing = sa.update(endpoints).where(noted_before(endpoints.c.failing_since))
    connection.execute(failing.values(failing_since=endpoints.c.failing_since + by_ms))
    too_long = sa.update(writers).where(writers.c.lease_until > now + writer_lease_ms)
    connection.execute(too_long.values(lease_until=now + writer_lease_ms))
