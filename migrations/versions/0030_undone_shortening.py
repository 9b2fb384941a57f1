"""From which end a booking was shortened: one that gets it back is not wanted for longer than it was."""

import sqlalchemy as sa
from alembic import op

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("bookings", sa.Column("shortened_from", sa.DateTime(timezone=True)))


def downgrade() -> None:
    op.drop_column("bookings", "shortened_from")
