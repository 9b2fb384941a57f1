"""Notices and the ways they go, and calendars' secret addresses."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0013"
down_revision = "0005"
branch_labels = None
depends_on = None

EVENTS = (
    "made", "starts", "ends_soon", "ended", "moved", "approved", "quota_low", "waiting", "quarantine", "alarm", "test",
)  # fmt: skip


def id_column() -> sa.Column[int]:
    return sa.Column("id", sa.BigInteger(), nullable=False)


def moment(name: str, *, now: bool = False) -> sa.Column[object]:
    default = sa.text("now()") if now else None
    return sa.Column(name, sa.DateTime(timezone=True), server_default=default, nullable=not now)


def upgrade() -> None:
    op.create_table(
        "channels",
        id_column(),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("scheme", sa.String(length=16), nullable=False),
        sa.Column("sealed", sa.Text(), nullable=False),
        moment("created_at", now=True),
        sa.Column("trouble", sa.Text(), server_default="", nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_channels_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_channels")),
    )
    op.create_index(op.f("ix_channels_user_id"), "channels", ["user_id"])
    op.create_table(
        "notice_choices",
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("ways", postgresql.JSONB(), server_default="{}", nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_notice_choices_user_id")),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_notice_choices")),
    )
    op.create_table(
        "news",
        sa.Column("event_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.ForeignKeyConstraint(["event_id"], ["audit_events.id"], name=op.f("fk_news_event_id")),
        sa.PrimaryKeyConstraint("event_id", name=op.f("pk_news")),
    )
    _notices()
    op.create_table(
        "feeds",
        id_column(),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("host_id", sa.BigInteger(), nullable=True),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("token_hash", sa.String(length=64), nullable=False),
        sa.Column("locale", sa.String(length=16), server_default="", nullable=False),
        moment("created_at", now=True),
        moment("last_used_at"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_feeds_user_id")),
        sa.ForeignKeyConstraint(["host_id"], ["hosts.id"], name=op.f("fk_feeds_host_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_feeds")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_feeds_token_hash")),
    )
    op.create_index(op.f("ix_feeds_user_id"), "feeds", ["user_id"])


def _notices() -> None:
    op.create_table(
        "notices",
        id_column(),
        sa.Column("key", sa.String(length=160), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("channel_id", sa.BigInteger(), nullable=True),
        sa.Column("event", sa.String(length=16), nullable=False),
        sa.Column("details", postgresql.JSONB(), server_default="{}", nullable=False),
        moment("created_at", now=True),
        moment("due_at", now=True),
        moment("expires_at"),
        sa.Column("attempts", sa.BigInteger(), server_default="0", nullable=False),
        moment("sent_at"),
        moment("given_up_at"),
        sa.Column("trouble", sa.Text(), server_default="", nullable=False),
        sa.CheckConstraint(
            "event IN (" + ", ".join(f"'{event}'" for event in EVENTS) + ")", name=op.f("ck_notices_event")
        ),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_notices_user_id")),
        sa.ForeignKeyConstraint(
            ["channel_id"], ["channels.id"], name=op.f("fk_notices_channel_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notices")),
        sa.UniqueConstraint("key", name=op.f("uq_notices_key")),
    )
    op.create_index(op.f("ix_notices_channel_id"), "notices", ["channel_id"])
    op.create_index("ix_notices_user_id_id", "notices", ["user_id", "id"])
    waiting = sa.text("sent_at IS NULL AND given_up_at IS NULL")
    op.create_index("ix_notices_waiting", "notices", ["due_at"], postgresql_where=waiting)
    op.create_index(
        "ix_notices_given_up", "notices", ["given_up_at"], postgresql_where=sa.text("given_up_at IS NOT NULL")
    )


def downgrade() -> None:
    for table in ("feeds", "notices", "news", "notice_choices", "channels"):
        op.drop_table(table)
