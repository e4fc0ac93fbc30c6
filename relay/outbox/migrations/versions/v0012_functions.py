"""Functions in PostgreSQL for the append of one event and for claims.

The functions of ``outbox/postgres/functions.py`` are made after the migrations; no table changes.
"""

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass
