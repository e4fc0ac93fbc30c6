"""An index of the lanes by endpoint: without it, making or removing an endpoint reads every lane."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    every = sa.text("sid > 0")
    op.create_index("lanes_of_endpoint", "lanes", ["endpoint", "sid"], sqlite_where=every, postgresql_where=every)
