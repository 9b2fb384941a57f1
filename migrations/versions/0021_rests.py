"""Which booking another one is the rest of, since maintenance took a GPU of it while it ran."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("bookings", sa.Column("rest_of_id", sa.BigInteger()))
    op.create_foreign_key("fk_bookings_rest_of_id", "bookings", "bookings", ["rest_of_id"], ["id"])
    op.create_index(
        "ix_bookings_rest_of_id", "bookings", ["rest_of_id"], postgresql_where=sa.text("rest_of_id IS NOT NULL")
    )


def downgrade() -> None:
    op.drop_index("ix_bookings_rest_of_id", "bookings")
    op.drop_constraint("fk_bookings_rest_of_id", "bookings", type_="foreignkey")
    op.drop_column("bookings", "rest_of_id")
