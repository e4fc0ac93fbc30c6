"""Storage parameters in PostgreSQL: rows that change with every event stay on their page, and vacuums come in time.

The functions of ``outbox/postgres/functions.py`` are made after the migrations.
"""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if op.get_bind().dialect.name != "postgresql":
        return
    # A settlement or an append changes no column that is in an index: with room on the page, the new version of the
    # row goes beside the old one, and no index grows (a "HOT" update).
    op.execute("ALTER TABLE lanes SET (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05)")
    op.execute("ALTER TABLE streams SET (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05)")
    # By default a fifth of a table must be dead before it is vacuumed: of these, that may be many gigabytes.
    op.execute("ALTER TABLE events SET (autovacuum_vacuum_scale_factor = 0.02)")
    op.execute("ALTER TABLE attempts SET (autovacuum_vacuum_scale_factor = 0.02)")
