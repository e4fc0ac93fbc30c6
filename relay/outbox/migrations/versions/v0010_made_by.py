"""Who made an endpoint over the HTTP API."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("api_endpoints", sa.Column("made_by", sa.Text))
