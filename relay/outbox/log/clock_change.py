"""What becomes of the schedule when the wall clock is set.

A dispatcher finds it out some moments later, and what was written meanwhile stands between the rest. So each kind of
time has the rule that is right, or harmless, for both:

- *A lease* never ends early, for its holder would be robbed of it: it moves along when the clock was set forward. And
  it never lasts longer than leases do, so that what a dead dispatcher had is free soon after the clock was set back.
- *A retry time* that still lay ahead moves along, so that the wait is as long as it was. One that was written after the
  clock was set forward stays as it is.
- *What was due* is still due. So is a lane that waits though nothing has failed: an append made it due, and said when
  by a clock that was ahead.
- *The lease of a writer* is cut to the length that such leases have. A writer that is alive renews it within that time.
- *Since when something fails, and when it failed last,* moves along with the clock, so that nobody is given up on for
  time that never passed. A time within the last seconds is left alone after the clock was set back: it may have been
  written since, and would then be too old by all that the clock was set back.
"""

import sqlalchemy as sa

from relay.outbox.schema import endpoints, lanes, parked, resends, writers

UNNOTICED_MS = 5_000
"""How long a jump may go unnoticed, on a busy machine too: a dispatcher looks every second."""


def shift(
    connection: sa.Connection, by_ms: int, *, beyond: int, now: int, lease_ms: int | None, writer_lease_ms: int
) -> None:
    """Follow a clock that was set from ``beyond`` by so much, and says ``now``.

    ``lease_ms`` is the longest that a lease of lanes lasts, None where that is not known.
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
