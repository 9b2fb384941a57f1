"""A person's bookings are found by their end: those of a week, whatever else is stored, and what is to come."""

from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_bookings_user_id_ends_at", "bookings", ["user_id", "ends_at"])


def downgrade() -> None:
    op.drop_index("ix_bookings_user_id_ends_at", table_name="bookings")
