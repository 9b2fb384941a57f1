"""When a GPU came and when it was gone: a report counts it for that time only, not for as long as its host is there."""

import sqlalchemy as sa
from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Neither is known of those that are there: they came with their host, and the next sync finds who is gone.
    for name in ("added_at", "gone_at"):
        op.add_column("gpus", sa.Column(name, sa.DateTime(timezone=True)))


def downgrade() -> None:
    for name in ("gone_at", "added_at"):
        op.drop_column("gpus", name)
