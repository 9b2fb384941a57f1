"""People are told that a machine's disk is nearly full."""

from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

EVENTS = (
    "made", "starts", "ends_soon", "ended", "moved", "offered", "idle", "approved", "quota_low", "waiting",
    "quarantine", "alarm", "summary", "test",
)  # fmt: skip


def upgrade() -> None:
    _events((*EVENTS, "disk_full"))


def downgrade() -> None:
    op.execute("DELETE FROM notices WHERE event = 'disk_full'")
    _events(EVENTS)


def _events(names: tuple[str, ...]) -> None:
    op.drop_constraint(op.f("ck_notices_event"), "notices", type_="check")
    listed = ", ".join(f"'{name}'" for name in names)
    op.create_check_constraint(op.f("ck_notices_event"), "notices", f"event IN ({listed})")
