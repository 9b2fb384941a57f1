"""Idle bookings are given back: the rules of it, what was said and done, the notice; and what a booking is charged."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

EVENTS = [
    "made",
    "starts",
    "ends_soon",
    "ended",
    "moved",
    "approved",
    "quota_low",
    "waiting",
    "quarantine",
    "alarm",
    "test",
    "summary",
    "offered",
]
NUMBERS = {
    "idle_minutes": 60, "idle_held_minutes": 120, "idle_percent": 1, "idle_grace": 15, "keeps": 2, "keep_minutes": 60,
}  # fmt: skip
CHOICES = {"reclaim": ("off", "trial", "on"), "charge": ("reclaimed", "reserved", "attached")}
OUTCOMES = ("open", "kept", "over", "reclaimed", "would")


def upgrade() -> None:
    for name, number in NUMBERS.items():
        op.add_column("policies", sa.Column(name, sa.BigInteger(), server_default=str(number), nullable=False))
    for name, values in CHOICES.items():
        op.add_column("policies", sa.Column(name, sa.String(16), server_default=values[0], nullable=False))
        op.create_check_constraint(op.f(f"ck_policies_{name}"), "policies", _one_of(name, values))
    op.add_column("bookings", sa.Column("extended_at", sa.DateTime(timezone=True), nullable=True))
    op.create_table(
        "idlings",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("booking_id", sa.BigInteger(), nullable=False),
        sa.Column("trial", sa.Boolean(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("held", sa.Boolean(), nullable=False),
        sa.Column("told_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("outcome", sa.String(16), server_default="open", nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("kept_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("seconds", sa.BigInteger(), server_default="0", nullable=False),
        sa.CheckConstraint(_one_of("outcome", OUTCOMES), name=op.f("ck_idlings_outcome")),
        sa.CheckConstraint("due_at > since", name=op.f("ck_idlings_due")),
        sa.ForeignKeyConstraint(["booking_id"], ["bookings.id"], name=op.f("fk_idlings_booking_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_idlings")),
    )
    op.create_index(op.f("ix_idlings_booking_id"), "idlings", ["booking_id"])
    op.create_index(
        "uq_idlings_open", "idlings", ["booking_id"], unique=True, postgresql_where=sa.text("outcome = 'open'")
    )
    _events([*EVENTS, "idle"])


def downgrade() -> None:
    op.execute("DELETE FROM notices WHERE event = 'idle'")
    _events(EVENTS)
    op.drop_table("idlings")
    op.drop_column("bookings", "extended_at")
    for name in CHOICES:
        op.drop_constraint(op.f(f"ck_policies_{name}"), "policies", type_="check")
    for name in (*CHOICES, *NUMBERS):
        op.drop_column("policies", name)


def _events(names: list[str]) -> None:
    op.drop_constraint(op.f("ck_notices_event"), "notices", type_="check")
    op.create_check_constraint(op.f("ck_notices_event"), "notices", _one_of("event", tuple(names)))


def _one_of(column: str, values: tuple[str, ...]) -> str:
    return f"{column} IN (" + ", ".join(f"'{value}'" for value in values) + ")"
