"""A claim in PostgreSQL gives a lane a fence that no claim of another server has.

The functions of ``outbox/postgres/functions.py`` are made after the migrations; no table changes.
"""

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass
