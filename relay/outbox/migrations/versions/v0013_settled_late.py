"""A function in PostgreSQL that settles lanes without taking a cursor back.

It is made after the migrations, as v0012 says; no table changes.
"""

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass
