"""From when on a GPU was booked that was replaced by one that somebody else had first: reports count the time until then
as not given."""

import sqlalchemy as sa
from alembic import op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("allocations", sa.Column("booked_from", sa.DateTime(timezone=True)))
    # Nothing else makes an allocation begin later than its booking. Its pieces are counted anew, as with any change.
    op.execute("""
        UPDATE allocations AS al SET booked_from = b.starts_at, counted = false
        FROM bookings AS b WHERE b.id = al.booking_id AND al.starts_at > b.starts_at""")
    op.create_index(
        op.f("ix_allocations_booked_from"),
        "allocations",
        ["booked_from"],
        postgresql_where=sa.text("booked_from IS NOT NULL"),
    )


def downgrade() -> None:
    op.execute("UPDATE allocations SET counted = false WHERE counted AND booked_from IS NOT NULL")
    op.drop_index(op.f("ix_allocations_booked_from"), "allocations")
    op.drop_column("allocations", "booked_from")
