"""Classes of accounts with rules of their own, the price at which a booking was made, and teams that share an account."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "account_classes",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("is_default", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("rules", postgresql.JSONB(), server_default="{}", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_account_classes")),
        sa.UniqueConstraint("name", name=op.f("uq_account_classes_name")),
    )
    op.create_index(
        "uq_account_classes_default",
        "account_classes",
        ["is_default"],
        unique=True,
        postgresql_where=sa.text("is_default"),
    )
    op.execute("INSERT INTO account_classes (name, is_default) VALUES ('Standard', true)")
    op.add_column("accounts", sa.Column("class_id", sa.BigInteger(), nullable=True))
    op.create_foreign_key(op.f("fk_accounts_class_id"), "accounts", "account_classes", ["class_id"], ["id"])
    op.create_index(op.f("ix_accounts_class_id"), "accounts", ["class_id"])
    op.create_table(
        "team_members",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("account_id", sa.BigInteger(), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("is_owner", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("cap_hours", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("cap_hours >= 0", name=op.f("ck_team_members_cap")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_team_members_account_id")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_team_members_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_team_members")),
        sa.UniqueConstraint("account_id", "user_id", name=op.f("uq_team_members_account_id_user_id")),
    )
    op.create_index(op.f("ix_team_members_user_id"), "team_members", ["user_id"])
    op.create_index("ix_bookings_account_id_ends_at", "bookings", ["account_id", "ends_at"])
    op.add_column("bookings", sa.Column("tariff", postgresql.JSONB(), server_default="{}", nullable=False))


def downgrade() -> None:
    op.drop_table("team_members")
    op.drop_column("bookings", "tariff")
    op.drop_index("ix_bookings_account_id_ends_at", "bookings")
    op.drop_index(op.f("ix_accounts_class_id"), "accounts")
    op.drop_constraint(op.f("fk_accounts_class_id"), "accounts", type_="foreignkey")
    op.drop_column("accounts", "class_id")
    op.drop_table("account_classes")
