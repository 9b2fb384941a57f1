"""Shared directories."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
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


def downgrade() -> None:
    op.drop_table("share_users")
    op.drop_table("shared_directories")
