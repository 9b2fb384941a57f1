"""Shared directories, and terminals in the browser."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "shared_directories",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("host_id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("source", sa.String(length=255), nullable=False),
        sa.Column("path", sa.String(length=255), nullable=False),
        sa.Column("read_only", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("own", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("for_everyone", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("active", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("findings", postgresql.JSONB(), server_default="[]", nullable=False),
        sa.Column("checked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("trouble", sa.Text(), server_default="", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("retired_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("NOT (own AND read_only)", name=op.f("ck_shared_directories_own")),
        sa.ForeignKeyConstraint(["host_id"], ["hosts.id"], name=op.f("fk_shared_directories_host_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_shared_directories")),
    )
    for column in ("name", "path"):
        op.create_index(
            f"uq_shared_directories_{column}",
            "shared_directories",
            ["host_id", column],
            unique=True,
            postgresql_where=sa.text("retired_at IS NULL"),
        )
    op.create_table(
        "share_users",
        sa.Column("share_id", sa.BigInteger(), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["share_id"], ["shared_directories.id"], name=op.f("fk_share_users_share_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_share_users_user_id")),
        sa.PrimaryKeyConstraint("share_id", "user_id", name=op.f("pk_share_users")),
    )
    op.add_column("hosts", sa.Column("terminal_url", sa.String(length=255), server_default="", nullable=False))
    op.create_table(
        "terminals",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("ticket_hash", sa.String(length=64), nullable=False),
        sa.Column("sign_in_id", sa.BigInteger(), nullable=False),
        sa.Column("instance_id", sa.BigInteger(), nullable=False),
        sa.Column("origin", sa.String(length=255), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["instance_id"], ["instances.id"], name=op.f("fk_terminals_instance_id")),
        sa.ForeignKeyConstraint(
            ["sign_in_id"], ["sign_ins.id"], name=op.f("fk_terminals_sign_in_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_terminals")),
        sa.UniqueConstraint("ticket_hash", name=op.f("uq_terminals_ticket_hash")),
    )
    op.create_index(op.f("ix_terminals_sign_in_id"), "terminals", ["sign_in_id"], unique=False)
    op.create_index(op.f("ix_terminals_instance_id"), "terminals", ["instance_id"], unique=False)


def downgrade() -> None:
    op.drop_table("terminals")
    op.drop_column("hosts", "terminal_url")
    op.drop_table("share_users")
    op.drop_table("shared_directories")
