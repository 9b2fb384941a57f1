"""What GPUs are at now, and what they did by the minute, the hour and the day, and for whom."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

PERIODS = (("usage_minutes", "minute"), ("usage_hours", "hour"), ("usage_days", "day"))


def upgrade() -> None:
    op.create_table(
        "consumers",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("host_id", sa.BigInteger(), nullable=False),
        sa.Column("booking_id", sa.BigInteger(), nullable=True),
        sa.Column("instance", sa.String(length=63), server_default="", nullable=False),
        sa.CheckConstraint("booking_id IS NULL OR instance <> ''", name=op.f("ck_consumers_booked_by_an_instance")),
        sa.ForeignKeyConstraint(["host_id"], ["hosts.id"], name=op.f("fk_consumers_host_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["booking_id"], ["bookings.id"], name=op.f("fk_consumers_booking_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_consumers")),
    )
    for first, condition in (("booking_id", "booking_id IS NOT NULL"), ("host_id", "booking_id IS NULL")):
        op.create_index(
            f"uq_consumers_{first}_instance",
            "consumers",
            [first, "instance"],
            unique=True,
            postgresql_where=sa.text(condition),
        )
    for table, period in PERIODS:
        _amounts(table, period)
    op.create_index("ix_usage_minutes_minute", "usage_minutes", ["minute"], postgresql_using="brin")
    op.create_table(
        "usage_batches",
        sa.Column("host_id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("delivered_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["host_id"], ["hosts.id"], name=op.f("fk_usage_batches_host_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("host_id", "name", name=op.f("pk_usage_batches")),
    )
    op.create_index(op.f("ix_usage_batches_delivered_at"), "usage_batches", ["delivered_at"])
    op.create_table(
        "gpus_now",
        sa.Column("gpu_id", sa.BigInteger(), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("values", postgresql.JSONB(), server_default="{}", nullable=False),
        sa.Column("processes", postgresql.JSONB(), server_default="[]", nullable=False),
        sa.Column("trouble", sa.String(length=200), server_default="", nullable=False),
        sa.ForeignKeyConstraint(["gpu_id"], ["gpus.id"], name=op.f("fk_gpus_now_gpu_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("gpu_id", name=op.f("pk_gpus_now")),
    )


def _amounts(table: str, period: str) -> None:
    kind = sa.Date() if period == "day" else sa.DateTime(timezone=True)
    keys = ("gpu_id", "minute", "consumer_id") if period == "minute" else (period, "gpu_id", "consumer_id")
    columns = {"gpu_id": sa.Integer(), period: kind, "consumer_id": sa.Integer()}
    measured = {name: sa.Integer() for name in ("sampled_ms", "busy_ms", "energy_j", "memory_mib")}
    op.create_table(
        table,
        *(sa.Column(name, columns[name], nullable=False) for name in keys),
        *(sa.Column(name, type_, nullable=False) for name, type_ in measured.items()),
        sa.Column("temperature", sa.SmallInteger(), nullable=False),
        sa.ForeignKeyConstraint(["gpu_id"], ["gpus.id"], name=op.f(f"fk_{table}_gpu_id")),
        sa.ForeignKeyConstraint(["consumer_id"], ["consumers.id"], name=op.f(f"fk_{table}_consumer_id")),
        sa.PrimaryKeyConstraint(*keys, name=op.f(f"pk_{table}")),
    )


def downgrade() -> None:
    for table in ("gpus_now", "usage_batches", "usage_days", "usage_hours", "usage_minutes", "consumers"):
        op.drop_table(table)
