"""Eviction: grace, quarantine, warnings, and what a look at a host showed."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("policies", sa.Column("grace_seconds", sa.BigInteger(), server_default="20", nullable=False))
    op.add_column("policies", sa.Column("force_stop", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.create_check_constraint(op.f("ck_policies_grace"), "policies", "grace_seconds >= 0")
    op.add_column("gpus", sa.Column("quarantined_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("gpus", sa.Column("quarantine_reason", sa.Text(), server_default="", nullable=False))
    op.add_column("allocations", sa.Column("asked_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("allocations", sa.Column("warned", sa.BigInteger(), nullable=True))
    op.add_column("allocations", sa.Column("holders", postgresql.JSONB(), server_default="[]", nullable=False))
    op.add_column("allocations", sa.Column("instead_of_id", sa.BigInteger(), nullable=True))
    op.create_foreign_key(op.f("fk_allocations_instead_of_id_gpus"), "allocations", "gpus", ["instead_of_id"], ["id"])
    op.create_index(
        "ix_allocations_not_gone",
        "allocations",
        ["ends_at"],
        postgresql_where=sa.text("attached_at IS NOT NULL AND detached_at IS NULL"),
    )
    op.add_column("hosts", sa.Column("observed", postgresql.JSONB(), server_default="{}", nullable=False))
    op.add_column("hosts", sa.Column("findings", postgresql.JSONB(), server_default="[]", nullable=False))
    op.add_column("hosts", sa.Column("checked_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    for column in ("checked_at", "findings", "observed"):
        op.drop_column("hosts", column)
    op.drop_index(
        "ix_allocations_not_gone",
        table_name="allocations",
        postgresql_where=sa.text("attached_at IS NOT NULL AND detached_at IS NULL"),
    )
    op.drop_constraint(op.f("fk_allocations_instead_of_id_gpus"), "allocations", type_="foreignkey")
    for column in ("instead_of_id", "holders", "warned", "asked_at"):
        op.drop_column("allocations", column)
    for column in ("quarantine_reason", "quarantined_at"):
        op.drop_column("gpus", column)
    op.drop_constraint(op.f("ck_policies_grace"), "policies", type_="check")
    for column in ("force_stop", "grace_seconds"):
        op.drop_column("policies", column)
