"""What a recovery of an endpoint makes due at once; what an earlier version left waiting is due now, in order."""

from itertools import groupby

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_KEY = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    for table in ("lanes", "parked"):
        op.add_column(table, sa.Column("failed_at", _KEY))
        op.add_column(table, sa.Column("outage", sa.Boolean, nullable=False, server_default=sa.true()))
    _put_back(op.get_bind())
    # Earlier versions parked during outages, and did not detect the end of an outage.
    op.execute("UPDATE parked SET next_at = parked_at WHERE owner IS NULL AND next_at > parked_at")
    op.execute(
        "UPDATE lanes SET next_at = failing_since WHERE owner IS NULL AND attempts > 0 AND next_at > failing_since"
    )


def _put_back(connection: sa.Connection) -> None:
    """Move parked events back to the heads of their lanes, if nothing was sent after them."""
    found = connection.execute(
        sa.text(
            "SELECT p.lane, p.sequence, p.previous, p.attempts, p.parked_at, p.owner, l.last_sent "
            "FROM parked p JOIN lanes l ON l.lane = p.lane WHERE l.owner IS NULL ORDER BY p.lane, p.sequence DESC"
        )
    ).all()
    for lane, rows in groupby(found, key=lambda row: row.lane):
        head, last_sent = None, None
        for row in rows:
            if row.owner is not None or row.sequence != (row.last_sent if last_sent is None else last_sent):
                break
            head, last_sent = row, row.previous
        if head is None:
            continue
        moved = {"lane": lane, "first": head.sequence, "cursor": head.sequence - 1, "previous": head.previous}
        connection.execute(sa.text("DELETE FROM parked WHERE lane = :lane AND sequence >= :first"), moved)
        connection.execute(
            sa.text(
                "UPDATE lanes SET cursor = :cursor, last_sent = :previous, attempts = :attempts, next_at = :at, "
                "failing_since = :at WHERE lane = :lane"
            ),
            {**moved, "attempts": max(1, head.attempts), "at": head.parked_at},
        )
