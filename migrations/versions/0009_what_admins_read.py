"""Logs that admins have read out for them, and how NVIDIA's libraries come into a host's machines."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("hosts", sa.Column("libraries", sa.String(length=8), server_default="auto", nullable=False))
    op.add_column("hosts", sa.Column("libraries_seen", postgresql.JSONB(), server_default="{}", nullable=False))
    op.create_check_constraint(op.f("ck_hosts_libraries"), "hosts", "libraries IN ('auto', 'runtime', 'mount', 'own')")
    op.create_table(
        "readings",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("host_id", sa.BigInteger(), nullable=False),
        sa.Column("instance", sa.String(length=63), nullable=False),
        sa.Column("what", sa.String(length=8), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("answered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("text", sa.Text(), server_default="", nullable=False),
        sa.Column("error", sa.Text(), server_default="", nullable=False),
        sa.CheckConstraint("what IN ('log', 'console')", name=op.f("ck_readings_what")),
        sa.ForeignKeyConstraint(
            ["host_id"], ["hosts.id"], name=op.f("fk_readings_host_id_hosts"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_readings")),
        sa.UniqueConstraint("host_id", "instance", "what", name=op.f("uq_readings_host_id_instance_what")),
    )  # fmt: skip


def downgrade() -> None:
    op.drop_table("readings")
    op.drop_constraint(op.f("ck_hosts_libraries"), "hosts", type_="check")
    op.drop_column("hosts", "libraries_seen")
    op.drop_column("hosts", "libraries")
