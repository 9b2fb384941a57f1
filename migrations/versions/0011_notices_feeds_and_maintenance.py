"""Notices and the ways they go, calendars' secret addresses, and times of maintenance."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

EVENTS = (
    "made", "starts", "ends_soon", "ended", "moved", "approved", "quota_low", "waiting", "quarantine", "alarm", "test",
)  # fmt: skip


# Who books and who blocks lock the GPUs' rows first, so neither misses the other; this is the net below that.
TRIGGERS = (
    """
    CREATE FUNCTION keep_out() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE hit boolean;
    BEGIN
      IF TG_TABLE_NAME = 'allocations' THEN
        SELECT NEW.released_at IS NULL AND EXISTS (
          SELECT 1 FROM blocks o WHERE o.gpu_id = NEW.gpu_id AND o.lifted_at IS NULL
          AND o.ends_at > NEW.starts_at AND o.starts_at < NEW.ends_at) INTO hit;
      ELSE
        SELECT NEW.lifted_at IS NULL AND EXISTS (
          SELECT 1 FROM allocations o WHERE o.gpu_id = NEW.gpu_id AND o.released_at IS NULL
          AND o.ends_at > NEW.starts_at AND o.starts_at < NEW.ends_at) INTO hit;
      END IF;
      IF hit THEN
        RAISE EXCEPTION 'GPU % is in maintenance then, or booked', NEW.gpu_id
          USING ERRCODE = 'exclusion_violation', CONSTRAINT = 'keep_out';
      END IF;
      RETURN NEW;
    END $$
    """,
    """
    CREATE TRIGGER allocations_keep_out BEFORE INSERT OR UPDATE OF gpu_id, starts_at, ends_at, released_at
    ON allocations FOR EACH ROW EXECUTE FUNCTION keep_out()
    """,
    """
    CREATE TRIGGER blocks_keep_out BEFORE INSERT OR UPDATE OF gpu_id, starts_at, ends_at, lifted_at
    ON blocks FOR EACH ROW EXECUTE FUNCTION keep_out()
    """,
)


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

    _maintenance()


def _maintenance() -> None:
    op.create_table(
        "maintenances",
        id_column(),
        sa.Column("host_id", sa.BigInteger(), nullable=False),
        sa.Column("starts_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reason", sa.String(length=200), server_default="", nullable=False),
        sa.Column("actor", sa.String(length=64), nullable=False),
        moment("created_at", now=True),
        moment("lifted_at"),
        sa.CheckConstraint("ends_at > starts_at", name=op.f("ck_maintenances_window")),
        sa.ForeignKeyConstraint(["host_id"], ["hosts.id"], name=op.f("fk_maintenances_host_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_maintenances")),
    )
    op.create_index(op.f("ix_maintenances_host_id"), "maintenances", ["host_id"])
    op.create_table(
        "blocks",
        id_column(),
        sa.Column("maintenance_id", sa.BigInteger(), nullable=False),
        sa.Column("gpu_id", sa.BigInteger(), nullable=False),
        sa.Column("starts_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=False),
        moment("lifted_at"),
        sa.CheckConstraint("ends_at > starts_at", name=op.f("ck_blocks_window")),
        sa.ForeignKeyConstraint(["maintenance_id"], ["maintenances.id"], name=op.f("fk_blocks_maintenance_id")),
        sa.ForeignKeyConstraint(["gpu_id"], ["gpus.id"], name=op.f("fk_blocks_gpu_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_blocks")),
    )
    op.create_index(op.f("ix_blocks_maintenance_id"), "blocks", ["maintenance_id"])
    op.create_index(
        "ix_blocks_gpu_id_ends_at", "blocks", ["gpu_id", "ends_at"], postgresql_where=sa.text("lifted_at IS NULL")
    )
    for statement in TRIGGERS:
        op.execute(statement)


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
    op.execute("DROP TRIGGER allocations_keep_out ON allocations")
    op.execute("DROP TRIGGER blocks_keep_out ON blocks")
    op.execute("DROP FUNCTION keep_out()")
    for table in ("blocks", "maintenances", "feeds", "notices", "news", "notice_choices", "channels"):
        op.drop_table(table)
