"""Giving a machine its host's NVIDIA libraries, as work of its own."""

from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

OLD_KINDS = (
    "create", "start", "stop", "restart", "delete", "password", "freeze", "rename", "resize", "rebuild", "snapshot",
    "restore", "forget", "adopt", "build", "discard", "move", "backup",
)  # fmt: skip


def _set(kinds: tuple[str, ...]) -> None:
    allowed = ", ".join(f"'{kind}'" for kind in kinds)
    op.drop_constraint(op.f("ck_operations_kind"), "operations", type_="check")
    op.create_check_constraint(op.f("ck_operations_kind"), "operations", f"kind IN ({allowed})")


def upgrade() -> None:
    _set((*OLD_KINDS, "libraries"))


def downgrade() -> None:
    op.execute("DELETE FROM operations WHERE kind = 'libraries'")
    _set(OLD_KINDS)
