"""Templates, ports and SSH keys; long work on templates too, with a log."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

OLD_KINDS = ("create", "start", "stop", "restart", "delete")
NEW_KINDS = ("password", "freeze", "rename", "resize", "rebuild", "snapshot", "restore", "forget", "build", "discard")


def one_of(kinds: tuple[str, ...]) -> str:
    return "kind IN (" + ", ".join(f"'{kind}'" for kind in kinds) + ")"


def upgrade() -> None:
    op.create_table(
        "templates",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("host_id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("description", sa.Text(), server_default="", nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("source", sa.String(length=255), nullable=False),
        sa.Column("options", postgresql.JSONB(), server_default="{}", nullable=False),
        sa.Column("state", sa.String(length=16), server_default="building", nullable=False),
        sa.Column("image", sa.String(length=120), server_default="", nullable=False),
        sa.Column("desktop", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("driver_version", sa.String(length=32), server_default="", nullable=False),
        sa.Column("picture", sa.LargeBinary(), nullable=True),
        sa.Column("for_everyone", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("ready_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("retired_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("kind IN ('recipe', 'image', 'instance')", name=op.f("ck_templates_kind")),
        sa.CheckConstraint("state IN ('building', 'ready', 'failed')", name=op.f("ck_templates_state")),
        sa.ForeignKeyConstraint(["host_id"], ["hosts.id"], name=op.f("fk_templates_host_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_templates")),
    )
    op.create_index(op.f("ix_templates_host_id"), "templates", ["host_id"], unique=False)
    op.create_index(
        "uq_templates_name",
        "templates",
        ["host_id", "name"],
        unique=True,
        postgresql_where=sa.text("retired_at IS NULL"),
    )
    op.create_table(
        "ssh_keys",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_ssh_keys_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ssh_keys")),
        sa.UniqueConstraint("user_id", "fingerprint", name=op.f("uq_ssh_keys_user_id_fingerprint")),
    )
    op.create_index(op.f("ix_ssh_keys_user_id"), "ssh_keys", ["user_id"], unique=False)
    op.create_table(
        "template_users",
        sa.Column("template_id", sa.BigInteger(), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["template_id"], ["templates.id"], name=op.f("fk_template_users_template_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_template_users_user_id")),
        sa.PrimaryKeyConstraint("template_id", "user_id", name=op.f("pk_template_users")),
    )
    op.create_table(
        "ports",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("host_id", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("purpose", sa.String(length=8), nullable=False),
        sa.Column("instance_id", sa.BigInteger(), nullable=False),
        sa.Column("trouble", sa.Text(), server_default="", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("released_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("purpose IN ('ssh', 'rdp')", name=op.f("ck_ports_purpose")),
        sa.CheckConstraint("number BETWEEN 1024 AND 65535", name=op.f("ck_ports_number")),
        sa.ForeignKeyConstraint(["host_id"], ["hosts.id"], name=op.f("fk_ports_host_id")),
        sa.ForeignKeyConstraint(["instance_id"], ["instances.id"], name=op.f("fk_ports_instance_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ports")),
    )
    op.create_index(
        "uq_ports_number", "ports", ["host_id", "number"], unique=True, postgresql_where=sa.text("released_at IS NULL")
    )
    op.create_index(
        "uq_ports_purpose",
        "ports",
        ["instance_id", "purpose"],
        unique=True,
        postgresql_where=sa.text("released_at IS NULL"),
    )
    op.add_column("hosts", sa.Column("address", sa.String(length=255), server_default="", nullable=False))
    op.add_column("hosts", sa.Column("listen", sa.String(length=64), server_default="0.0.0.0", nullable=False))  # noqa: S104
    op.add_column("hosts", sa.Column("first_port", sa.BigInteger(), server_default="22000", nullable=False))
    op.add_column("hosts", sa.Column("last_port", sa.BigInteger(), server_default="22999", nullable=False))
    op.add_column("instances", sa.Column("template_id", sa.BigInteger(), nullable=True))
    op.add_column("instances", sa.Column("password_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("instances", sa.Column("keys_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("instances", sa.Column("health", postgresql.JSONB(), server_default="{}", nullable=False))
    op.create_index(op.f("ix_instances_template_id"), "instances", ["template_id"], unique=False)
    op.create_foreign_key(op.f("fk_instances_template_id"), "instances", "templates", ["template_id"], ["id"])
    op.add_column("operations", sa.Column("template_id", sa.BigInteger(), nullable=True))
    op.add_column("operations", sa.Column("log", sa.Text(), server_default="", nullable=False))
    op.alter_column("operations", "instance_id", existing_type=sa.BIGINT(), nullable=True)
    op.create_index(op.f("ix_operations_template_id"), "operations", ["template_id"], unique=False)
    op.create_index(
        "uq_operations_open_template",
        "operations",
        ["template_id"],
        unique=True,
        postgresql_where=sa.text("state IN ('queued', 'running')"),
    )
    op.create_foreign_key(op.f("fk_operations_template_id"), "operations", "templates", ["template_id"], ["id"])
    op.add_column("users", sa.Column("keys_changed_at", sa.DateTime(timezone=True), nullable=True))
    op.create_check_constraint(
        op.f("ck_hosts_ports"), "hosts", "1024 <= first_port AND first_port <= last_port AND last_port <= 65535"
    )
    op.drop_constraint(op.f("ck_operations_kind"), "operations", type_="check")
    op.create_check_constraint(op.f("ck_operations_kind"), "operations", one_of(OLD_KINDS + NEW_KINDS))
    op.create_check_constraint(op.f("ck_operations_target"), "operations", "num_nonnulls(instance_id, template_id) = 1")


def downgrade() -> None:
    op.execute(f"DELETE FROM operations WHERE NOT ({one_of(OLD_KINDS)})")  # noqa: S608 - constants of this file
    op.drop_constraint(op.f("ck_operations_target"), "operations", type_="check")
    op.drop_constraint(op.f("ck_operations_kind"), "operations", type_="check")
    op.create_check_constraint(op.f("ck_operations_kind"), "operations", one_of(OLD_KINDS))
    op.drop_constraint(op.f("ck_hosts_ports"), "hosts", type_="check")
    op.drop_column("users", "keys_changed_at")
    op.drop_constraint(op.f("fk_operations_template_id"), "operations", type_="foreignkey")
    op.drop_index(
        "uq_operations_open_template",
        table_name="operations",
        postgresql_where=sa.text("state IN ('queued', 'running')"),
    )
    op.drop_index(op.f("ix_operations_template_id"), table_name="operations")
    op.alter_column("operations", "instance_id", existing_type=sa.BIGINT(), nullable=False)
    op.drop_column("operations", "log")
    op.drop_column("operations", "template_id")
    op.drop_constraint(op.f("fk_instances_template_id"), "instances", type_="foreignkey")
    op.drop_index(op.f("ix_instances_template_id"), table_name="instances")
    op.drop_column("instances", "health")
    op.drop_column("instances", "keys_at")
    op.drop_column("instances", "password_at")
    op.drop_column("instances", "template_id")
    op.drop_column("hosts", "last_port")
    op.drop_column("hosts", "first_port")
    op.drop_column("hosts", "listen")
    op.drop_column("hosts", "address")
    op.drop_index("uq_ports_purpose", table_name="ports", postgresql_where=sa.text("released_at IS NULL"))
    op.drop_index("uq_ports_number", table_name="ports", postgresql_where=sa.text("released_at IS NULL"))
    op.drop_table("ports")
    op.drop_table("template_users")
    op.drop_index(op.f("ix_ssh_keys_user_id"), table_name="ssh_keys")
    op.drop_table("ssh_keys")
    op.drop_index("uq_templates_name", table_name="templates", postgresql_where=sa.text("retired_at IS NULL"))
    op.drop_index(op.f("ix_templates_host_id"), table_name="templates")
    op.drop_table("templates")
