"""What machines use, their snapshots' schedule, deletion with a grace period, taking over what Berth did not make."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

OLD_KINDS = (
    "create", "start", "stop", "restart", "delete", "password", "freeze", "rename", "resize", "rebuild", "snapshot",
    "restore", "forget", "build", "discard",
)  # fmt: skip


def one_of(column: str, choices: tuple[str, ...]) -> str:
    return f"{column} IN (" + ", ".join(f"'{choice}'" for choice in choices) + ")"


def upgrade() -> None:
    op.add_column("hosts", sa.Column("survey", postgresql.JSONB(), server_default="{}", nullable=False))
    op.add_column("hosts", sa.Column("surveyed_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("instances", sa.Column("observed", postgresql.JSONB(), server_default="{}", nullable=False))
    op.add_column("instances", sa.Column("autostart", sa.Boolean(), server_default=sa.text("true"), nullable=False))
    op.add_column("instances", sa.Column("delete_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("instances", sa.Column("schedule", sa.String(length=8), server_default="never", nullable=False))
    op.add_column("instances", sa.Column("keep", sa.BigInteger(), server_default="3", nullable=False))
    op.create_check_constraint(
        op.f("ck_instances_schedule"), "instances", one_of("schedule", ("never", "daily", "weekly"))
    )
    op.create_check_constraint(op.f("ck_instances_keep"), "instances", "keep > 0")
    op.add_column("policies", sa.Column("max_snapshots", sa.BigInteger(), server_default="5", nullable=False))
    op.add_column("policies", sa.Column("delete_days", sa.BigInteger(), server_default="7", nullable=False))
    op.drop_constraint(op.f("ck_operations_kind"), "operations", type_="check")
    op.create_check_constraint(op.f("ck_operations_kind"), "operations", one_of("kind", (*OLD_KINDS, "adopt")))


def downgrade() -> None:
    op.execute("DELETE FROM operations WHERE kind = 'adopt'")
    op.drop_constraint(op.f("ck_operations_kind"), "operations", type_="check")
    op.create_check_constraint(op.f("ck_operations_kind"), "operations", one_of("kind", OLD_KINDS))
    op.drop_column("policies", "delete_days")
    op.drop_column("policies", "max_snapshots")
    op.drop_constraint(op.f("ck_instances_keep"), "instances", type_="check")
    op.drop_constraint(op.f("ck_instances_schedule"), "instances", type_="check")
    op.drop_column("instances", "keep")
    op.drop_column("instances", "schedule")
    op.drop_column("instances", "delete_at")
    op.drop_column("instances", "autostart")
    op.drop_column("instances", "observed")
    op.drop_column("hosts", "surveyed_at")
    op.drop_column("hosts", "survey")
