"""Series: bookings that were asked for together."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "series",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("account_id", sa.BigInteger(), nullable=False),
        sa.Column("zone", sa.String(length=64), nullable=False),
        sa.Column("weekdays", postgresql.JSONB(), nullable=False),
        sa.Column("opens", sa.BigInteger(), nullable=False),
        sa.Column("closes", sa.BigInteger(), nullable=False),
        sa.Column("first_day", sa.Date(), nullable=False),
        sa.Column("until", sa.Date(), nullable=False),
        sa.Column("gpu_ids", postgresql.JSONB(), server_default="[]", nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("model", sa.String(length=120), server_default="", nullable=False),
        sa.Column("host", sa.String(length=63), server_default="", nullable=False),
        sa.Column("note", sa.String(length=200), server_default="", nullable=False),
        sa.Column("request_key", sa.String(length=96), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("opens >= 0 AND opens < 86400 AND closes > opens", name=op.f("ck_series_hours")),
        sa.CheckConstraint("until >= first_day", name=op.f("ck_series_days")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_series_user_id")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_series_account_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_series")),
        sa.UniqueConstraint("request_key", name=op.f("uq_series_request_key")),
    )
    op.create_index(op.f("ix_series_user_id"), "series", ["user_id"])
    op.add_column("bookings", sa.Column("series_id", sa.BigInteger(), nullable=True))
    op.create_foreign_key(op.f("fk_bookings_series_id"), "bookings", "series", ["series_id"], ["id"])
    op.create_index(
        "ix_bookings_series_id", "bookings", ["series_id"], postgresql_where=sa.text("series_id IS NOT NULL")
    )


def downgrade() -> None:
    op.drop_index("ix_bookings_series_id", "bookings")
    op.drop_column("bookings", "series_id")
    op.drop_table("series")
