"""From when on a GPU that was not attached would have been, but for its owner's machine."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("allocations", sa.Column("ready_at", sa.DateTime(timezone=True)))
    # What is settled was charged from its start, whoever was late: so the reports say of it, too.
    op.execute("""
        UPDATE allocations AS al SET ready_at = al.starts_at FROM bookings AS b
        WHERE b.id = al.booking_id AND b.settled_at IS NOT NULL AND al.released_at IS NULL
        AND (al.attached_at > al.starts_at + interval '60 seconds'
             OR al.attached_at IS NULL AND al.trouble IN ('', 'no_machine', 'stopped', 'frozen'))
    """)


def downgrade() -> None:
    op.drop_column("allocations", "ready_at")
