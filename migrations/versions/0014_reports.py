"""How long what GPUs did is kept, and a summary of each month."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
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
]


def upgrade() -> None:
    for name, days in (("minute_days", 35), ("hour_days", 800)):
        op.add_column("policies", sa.Column(name, sa.BigInteger(), server_default=str(days), nullable=False))
    _events([*EVENTS, "summary"])


def downgrade() -> None:
    op.execute("DELETE FROM notices WHERE event = 'summary'")
    _events(EVENTS)
    for name in ("hour_days", "minute_days"):
        op.drop_column("policies", name)


def _events(names: list[str]) -> None:
    op.drop_constraint(op.f("ck_notices_event"), "notices", type_="check")
    chosen = ", ".join(f"'{name}'" for name in names)
    op.create_check_constraint(op.f("ck_notices_event"), "notices", f"event IN ({chosen})")
