"""Hosts that are members of one LXD cluster, and moving a machine between them."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

OLD_KINDS = (
    "create", "start", "stop", "restart", "delete", "password", "freeze", "rename", "resize", "rebuild", "snapshot",
    "restore", "forget", "adopt", "build", "discard",
)  # fmt: skip


def kinds(choices: tuple[str, ...]) -> str:
    return "kind IN (" + ", ".join(f"'{choice}'" for choice in choices) + ")"


def upgrade() -> None:
    op.add_column("hosts", sa.Column("member", sa.String(length=63), server_default="", nullable=False))
    op.add_column("hosts", sa.Column("cluster", sa.String(length=64), server_default="", nullable=False))
    op.drop_constraint(op.f("ck_operations_kind"), "operations", type_="check")
    op.create_check_constraint(op.f("ck_operations_kind"), "operations", kinds((*OLD_KINDS, "move")))


def downgrade() -> None:
    op.execute("DELETE FROM operations WHERE kind = 'move'")
    op.drop_constraint(op.f("ck_operations_kind"), "operations", type_="check")
    op.create_check_constraint(op.f("ck_operations_kind"), "operations", kinds(OLD_KINDS))
    op.drop_column("hosts", "cluster")
    op.drop_column("hosts", "member")
