"""The lab's zone, as its portal writes it down for agents and commands."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("policies", sa.Column("zone", sa.String(64)))


def downgrade() -> None:
    op.drop_column("policies", "zone")
