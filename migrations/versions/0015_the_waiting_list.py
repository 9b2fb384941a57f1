"""The waiting list, how long its offers stand, and the notice of them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

BEFORE = (
    "made", "starts", "ends_soon", "ended", "moved", "approved", "quota_low", "waiting", "quarantine", "alarm", "test",
    "summary",
)  # fmt: skip
EVENTS = (*BEFORE[:5], "offered", *BEFORE[5:])
STATES = ("waiting", "offered", "granted", "expired", "withdrawn")


def one_of(column: str, values: tuple[str, ...]) -> str:
    return f"{column} IN (" + ", ".join(f"'{value}'" for value in values) + ")"


def events(values: tuple[str, ...]) -> None:
    op.drop_constraint(op.f("ck_notices_event"), "notices", type_="check")
    op.create_check_constraint(op.f("ck_notices_event"), "notices", one_of("event", values))


def moment(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def upgrade() -> None:
    events(EVENTS)
    op.add_column("policies", sa.Column("offer_minutes", sa.BigInteger(), server_default="30", nullable=False))
    op.create_check_constraint(op.f("ck_policies_offer"), "policies", "offer_minutes > 0")
    op.create_table(
        "waits",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("account", sa.String(length=64), server_default="", nullable=False),
        sa.Column("state", sa.String(length=16), server_default="waiting", nullable=False),
        sa.Column("gpu_ids", postgresql.JSONB(), server_default="[]", nullable=False),
        sa.Column("count", sa.BigInteger(), server_default="1", nullable=False),
        sa.Column("model", sa.String(length=120), server_default="", nullable=False),
        sa.Column("host", sa.String(length=63), server_default="", nullable=False),
        sa.Column("seconds", sa.BigInteger(), nullable=False),
        moment("starts_at"),
        moment("ends_at"),
        sa.Column("by_itself", sa.Boolean(), nullable=False),
        sa.Column("note", sa.String(length=200), server_default="", nullable=False),
        sa.Column("request_key", sa.String(length=96), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("booking_id", sa.BigInteger(), nullable=True),
        moment("decide_by", nullable=True),
        moment("granted_at", nullable=True),
        moment("closed_at", nullable=True),
        sa.CheckConstraint(one_of("state", STATES), name=op.f("ck_waits_state")),
        sa.CheckConstraint(
            "seconds > 0 AND ends_at >= starts_at + seconds * interval '1 second'", name=op.f("ck_waits_window")
        ),
        sa.CheckConstraint("count > 0", name=op.f("ck_waits_count")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_waits_user_id")),
        sa.ForeignKeyConstraint(["booking_id"], ["bookings.id"], name=op.f("fk_waits_booking_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_waits")),
        sa.UniqueConstraint("request_key", name=op.f("uq_waits_request_key")),
        sa.UniqueConstraint("booking_id", name=op.f("uq_waits_booking_id")),
    )
    op.create_index("ix_waits_open", "waits", ["id"], postgresql_where=sa.text("state IN ('waiting', 'offered')"))
    op.create_index("ix_waits_user_id_id", "waits", ["user_id", "id"])


def downgrade() -> None:
    op.drop_table("waits")
    op.drop_constraint(op.f("ck_policies_offer"), "policies", type_="check")
    op.drop_column("policies", "offer_minutes")
    op.execute("DELETE FROM notices WHERE event = 'offered'")
    events(BEFORE)
