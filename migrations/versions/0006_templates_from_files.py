"""Templates from files of images; which driver a host has, and which such files lie on it."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

OLD_KINDS = "kind IN ('recipe', 'image', 'instance')"
KINDS = "kind IN ('recipe', 'image', 'file', 'instance')"


def upgrade() -> None:
    op.add_column("hosts", sa.Column("image_files", postgresql.JSONB(), server_default="{}", nullable=False))
    op.add_column("hosts", sa.Column("driver_version", sa.String(length=32), server_default="", nullable=False))
    op.drop_constraint(op.f("ck_templates_kind"), "templates", type_="check")
    op.create_check_constraint(op.f("ck_templates_kind"), "templates", KINDS)


def downgrade() -> None:
    op.execute("UPDATE templates SET kind = 'image' WHERE kind = 'file'")
    op.drop_constraint(op.f("ck_templates_kind"), "templates", type_="check")
    op.create_check_constraint(op.f("ck_templates_kind"), "templates", OLD_KINDS)
    op.drop_column("hosts", "driver_version")
    op.drop_column("hosts", "image_files")
