"""What bookings of the past had of each GPU on each day is counted once. It is counted in steps, later: see
services.reports.counted. How busy hosts were in each hour is summed up; waits are found by when they were over."""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

# Whoever changes what was counted, or takes the mark away, has it counted anew: of all of the booking, since the rest
# of another one is nobody's loss only if no machine took any GPU of it.
COUNTED = ("booking_id", "gpu_id", "starts_at", "ends_at", "released_at", "attached_at", "detached_at", "ready_at",
           "trouble")  # fmt: skip
OF_BOOKING = ("user_id", "account_id", "host_id", "rest_of_id", "extended_at")
TRIGGERS = [
    """
    CREATE FUNCTION forget_pieces() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      DELETE FROM usage_pieces WHERE booking_id = OLD.booking_id;
      UPDATE allocations SET counted = false WHERE booking_id = OLD.booking_id AND counted;
      RETURN NULL;
    END $$
    """,
    """
    CREATE FUNCTION forget_pieces_of_booking() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      UPDATE allocations SET counted = false WHERE booking_id = OLD.id AND counted;
      RETURN NULL;
    END $$
    """,
    f"""
    CREATE TRIGGER forget_pieces AFTER UPDATE ON allocations FOR EACH ROW
    WHEN (OLD.counted AND (NOT NEW.counted OR ({", ".join(f"OLD.{name}" for name in COUNTED)})
          IS DISTINCT FROM ({", ".join(f"NEW.{name}" for name in COUNTED)})))
    EXECUTE FUNCTION forget_pieces()
    """,
    """
    CREATE TRIGGER forget_pieces_of_the_gone AFTER DELETE ON allocations FOR EACH ROW WHEN (OLD.counted)
    EXECUTE FUNCTION forget_pieces()
    """,
    f"""
    CREATE TRIGGER forget_pieces AFTER UPDATE OF {", ".join(OF_BOOKING)} ON bookings FOR EACH ROW
    WHEN (({", ".join(f"OLD.{name}" for name in OF_BOOKING)})
          IS DISTINCT FROM ({", ".join(f"NEW.{name}" for name in OF_BOOKING)}))
    EXECUTE FUNCTION forget_pieces_of_booking()
    """,
]
AMOUNTS = ("reserved", "attached", "late", "sampled", "busy", "energy")


def upgrade() -> None:
    op.add_column("allocations", sa.Column("counted", sa.Boolean(), server_default="false", nullable=False))
    op.create_index(
        op.f("ix_allocations_uncounted"),
        "allocations",
        ["starts_at"],
        postgresql_where=sa.text("NOT counted AND released_at IS NULL"),
    )
    op.create_table(
        "usage_pieces",
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("gpu_id", sa.Integer(), nullable=False),
        sa.Column("booking_id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("account_id", sa.Integer(), nullable=False),
        sa.Column("host_id", sa.Integer(), nullable=False),
        *(sa.Column(name, sa.Double(), nullable=False) for name in AMOUNTS),
        sa.Column("memory_mib", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["gpu_id"], ["gpus.id"], name=op.f("fk_usage_pieces_gpu_id")),
        sa.ForeignKeyConstraint(["booking_id"], ["bookings.id"], name=op.f("fk_usage_pieces_booking_id")),
        sa.PrimaryKeyConstraint("day", "gpu_id", "booking_id", name=op.f("pk_usage_pieces")),
    )
    op.create_index(op.f("ix_usage_pieces_booking_id"), "usage_pieces", ["booking_id"])
    for statement in TRIGGERS:
        op.execute(statement)
    op.create_table(
        "usage_host_hours",
        sa.Column("hour", sa.DateTime(timezone=True), nullable=False),
        sa.Column("host_id", sa.BigInteger(), nullable=False),
        sa.Column("sampled_ms", sa.BigInteger(), nullable=False),
        sa.Column("busy_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["host_id"], ["hosts.id"], name=op.f("fk_usage_host_hours_host_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("hour", "host_id", name=op.f("pk_usage_host_hours")),
    )
    op.execute("""
        INSERT INTO usage_host_hours (hour, host_id, sampled_ms, busy_ms)
        SELECT hour, c.host_id, sum(sampled_ms), sum(busy_ms) FROM usage_hours JOIN consumers AS c ON c.id = consumer_id
        GROUP BY 1, 2 ORDER BY 1, 2""")
    over = sa.text("coalesce(least(granted_at, closed_at), 'infinity'::timestamptz)")
    op.create_index(op.f("ix_waits_over"), "waits", [over])


def downgrade() -> None:
    op.drop_index(op.f("ix_waits_over"), "waits")
    op.drop_table("usage_host_hours")
    op.execute("DROP TRIGGER forget_pieces ON bookings")
    op.execute("DROP TRIGGER forget_pieces_of_the_gone ON allocations")
    op.execute("DROP TRIGGER forget_pieces ON allocations")
    op.execute("DROP FUNCTION forget_pieces_of_booking()")
    op.execute("DROP FUNCTION forget_pieces()")
    op.drop_table("usage_pieces")
    op.drop_index(op.f("ix_allocations_uncounted"), "allocations")
    op.drop_column("allocations", "counted")
