"""Backups of machines to download, and the desktop of the workstation itself."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

OLD_KINDS = (
    "create", "start", "stop", "restart", "delete", "password", "freeze", "rename", "resize", "rebuild", "snapshot",
    "restore", "forget", "adopt", "build", "discard", "move",
)  # fmt: skip


def one_of(column: str, choices: tuple[str, ...]) -> str:
    return f"{column} IN (" + ", ".join(f"'{choice}'" for choice in choices) + ")"


def moment(name: str, *, now: bool = False) -> sa.Column:
    return sa.Column(
        name, sa.DateTime(timezone=True), nullable=not now, server_default=sa.text("now()") if now else None
    )


def upgrade() -> None:
    op.add_column("hosts", sa.Column("desktop_port", sa.BigInteger(), nullable=True))
    op.add_column("hosts", sa.Column("desktop_answer", sa.String(length=16), nullable=True))
    op.create_check_constraint(op.f("ck_hosts_desktop_port"), "hosts", "desktop_port BETWEEN 1 AND 65535")
    op.create_table(
        "backups",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("instance_id", sa.BigInteger(), nullable=False),
        sa.Column("host_id", sa.BigInteger(), nullable=False),
        sa.Column("snapshot", sa.String(length=63), server_default="", nullable=False),
        sa.Column("size", sa.BigInteger(), server_default="0", nullable=False),
        moment("created_at", now=True),
        moment("ready_at"),
        moment("expires_at"),
        moment("removed_at"),
        sa.ForeignKeyConstraint(["host_id"], ["hosts.id"], name=op.f("fk_backups_host_id")),
        sa.ForeignKeyConstraint(["instance_id"], ["instances.id"], name=op.f("fk_backups_instance_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_backups")),
    )
    op.create_index(op.f("ix_backups_host_id"), "backups", ["host_id"])
    op.create_index(op.f("ix_backups_instance_id"), "backups", ["instance_id"])
    op.create_index(
        "uq_backups_instance", "backups", ["instance_id"], unique=True, postgresql_where=sa.text("removed_at IS NULL")
    )
    op.create_table(
        "downloads",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("ticket_hash", sa.String(length=64), nullable=False),
        sa.Column("backup_id", sa.BigInteger(), nullable=False),
        sa.Column("sign_in_id", sa.BigInteger(), nullable=True),
        moment("created_at", now=True),
        moment("opened_at"),
        moment("closed_at"),
        sa.ForeignKeyConstraint(["backup_id"], ["backups.id"], name=op.f("fk_downloads_backup_id")),
        sa.ForeignKeyConstraint(
            ["sign_in_id"], ["sign_ins.id"], name=op.f("fk_downloads_sign_in_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_downloads")),
        sa.UniqueConstraint("ticket_hash", name=op.f("uq_downloads_ticket_hash")),
    )
    op.create_index(op.f("ix_downloads_backup_id"), "downloads", ["backup_id"])
    op.create_index(op.f("ix_downloads_sign_in_id"), "downloads", ["sign_in_id"])
    op.drop_constraint(op.f("ck_operations_kind"), "operations", type_="check")
    op.create_check_constraint(op.f("ck_operations_kind"), "operations", one_of("kind", (*OLD_KINDS, "backup")))


def downgrade() -> None:
    op.execute("DELETE FROM operations WHERE kind = 'backup'")
    op.drop_constraint(op.f("ck_operations_kind"), "operations", type_="check")
    op.create_check_constraint(op.f("ck_operations_kind"), "operations", one_of("kind", OLD_KINDS))
    op.drop_table("downloads")
    op.drop_table("backups")
    op.drop_constraint(op.f("ck_hosts_desktop_port"), "hosts", type_="check")
    op.drop_column("hosts", "desktop_answer")
    op.drop_column("hosts", "desktop_port")
