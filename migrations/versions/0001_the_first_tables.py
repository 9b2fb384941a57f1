"""The first tables."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Quota in one place: whoever writes a ledger entry takes the account's row lock, and the balance follows. A key that is
# there already adds nothing (the lock makes that check safe), so a job that runs twice posts once. Without the lock,
# eight parallel holds on the last hours all passed.
LEDGER = """
CREATE FUNCTION post_ledger_entry() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM 1 FROM accounts WHERE id = NEW.account_id FOR NO KEY UPDATE;
  IF EXISTS (SELECT 1 FROM ledger_entries WHERE key = NEW.key) THEN
    RETURN NULL;
  END IF;
  UPDATE accounts SET balance = balance + NEW.amount WHERE id = NEW.account_id
    RETURNING balance INTO NEW.balance_after;
  IF NEW.kind = 'hold' AND NEW.balance_after < 0 THEN
    RAISE EXCEPTION 'hold of % overspends account %', NEW.amount, NEW.account_id
      USING ERRCODE = 'check_violation', CONSTRAINT = 'quota_exceeded', TABLE = 'ledger_entries';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER post BEFORE INSERT ON ledger_entries FOR EACH ROW EXECUTE FUNCTION post_ledger_entry();
"""

# What was done and what was paid cannot be rewritten, by a bug or by hand.
APPEND_ONLY = """
CREATE FUNCTION append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON ledger_entries
  FOR EACH ROW EXECUTE FUNCTION append_only();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON audit_events
  FOR EACH ROW EXECUTE FUNCTION append_only();
"""


def upgrade() -> None:
    op.create_table(
        "accounts",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("balance", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("monthly", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("renews_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_accounts")),
        sa.UniqueConstraint("name", name=op.f("uq_accounts_name")),
    )
    op.create_table(
        "audit_events",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("actor", sa.String(length=80), nullable=False),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("target", sa.String(length=120), nullable=False),
        sa.Column("details", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False),
        sa.Column("key", sa.String(length=80), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_events")),
        sa.UniqueConstraint("key", name=op.f("uq_audit_events_key")),
    )
    op.create_index("ix_audit_events_created_at", "audit_events", ["created_at"], unique=False)
    op.create_index("ix_audit_events_target", "audit_events", ["target"], unique=False)
    op.create_table(
        "hosts",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("endpoint", sa.String(length=255), nullable=False),
        sa.Column("lxd_version", sa.String(length=32), server_default="", nullable=False),
        sa.Column("enabled", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("images", postgresql.JSONB(astext_type=sa.Text()), server_default="[]", nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("pass_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("pass_ms", sa.BigInteger(), nullable=True),
        sa.Column("trouble", sa.Text(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_hosts")),
        sa.UniqueConstraint("name", name=op.f("uq_hosts_name")),
    )
    op.create_table(
        "policies",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("horizon_days", sa.BigInteger(), server_default="28", nullable=False),
        sa.Column("max_hours", sa.BigInteger(), server_default="72", nullable=False),
        sa.Column("max_gpus", sa.BigInteger(), server_default="8", nullable=False),
        sa.Column("default_hours", sa.BigInteger(), server_default="100", nullable=False),
        sa.Column("self_service", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("max_instances", sa.BigInteger(), server_default="2", nullable=False),
        sa.Column("max_cpus", sa.BigInteger(), server_default="8", nullable=False),
        sa.Column("max_memory_gib", sa.BigInteger(), server_default="32", nullable=False),
        sa.Column("max_disk_gib", sa.BigInteger(), server_default="100", nullable=False),
        sa.CheckConstraint("horizon_days > 0 AND max_hours > 0 AND max_gpus > 0", name=op.f("ck_policies_limits")),
        sa.CheckConstraint("id = 1", name=op.f("ck_policies_single")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_policies")),
    )
    op.create_table(
        "gpus",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("host_id", sa.BigInteger(), nullable=False),
        sa.Column("model", sa.String(length=120), nullable=False),
        sa.Column("pci_address", sa.String(length=12), nullable=False),
        sa.Column("minor", sa.BigInteger(), nullable=False),
        sa.Column("uuid", sa.String(length=64), server_default="", nullable=False),
        sa.Column("state", sa.String(length=16), server_default="in_service", nullable=False),
        sa.CheckConstraint("state IN ('in_service', 'maintenance', 'quarantine')", name=op.f("ck_gpus_state")),
        sa.ForeignKeyConstraint(["host_id"], ["hosts.id"], name=op.f("fk_gpus_host_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_gpus")),
        sa.UniqueConstraint("host_id", "pci_address", name=op.f("uq_gpus_host_id_pci_address")),
    )
    op.create_index(op.f("ix_gpus_host_id"), "gpus", ["host_id"], unique=False)
    op.create_table(
        "users",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("username", sa.String(length=32), nullable=False),
        sa.Column("full_name", sa.String(length=120), server_default="", nullable=False),
        sa.Column("email", sa.String(length=254), server_default="", nullable=False),
        sa.Column("reason", sa.String(length=500), server_default="", nullable=False),
        sa.Column("password_hash", sa.String(length=255), nullable=False),
        sa.Column("role", sa.String(length=16), server_default="user", nullable=False),
        sa.Column("state", sa.String(length=16), server_default="pending", nullable=False),
        sa.Column("locale", sa.String(length=16), server_default="", nullable=False),
        sa.Column("timezone", sa.String(length=64), server_default="", nullable=False),
        sa.Column("account_id", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_login_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("role IN ('user', 'admin')", name=op.f("ck_users_role")),
        sa.CheckConstraint("state IN ('pending', 'active', 'disabled', 'refused')", name=op.f("ck_users_state")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_users_account_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
        sa.UniqueConstraint("username", name=op.f("uq_users_username")),
    )
    op.create_index("ix_users_state", "users", ["state"], unique=False)
    op.create_table(
        "api_tokens",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("token_hash", sa.String(length=64), nullable=False),
        sa.Column("scopes", sa.String(length=200), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_api_tokens_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_tokens")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_api_tokens_token_hash")),
    )
    op.create_index(op.f("ix_api_tokens_user_id"), "api_tokens", ["user_id"], unique=False)
    op.create_table(
        "instances",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("host_id", sa.BigInteger(), nullable=False),
        sa.Column("owner_id", sa.BigInteger(), nullable=False),
        sa.Column("image", sa.String(length=120), nullable=False),
        sa.Column("cpus", sa.BigInteger(), nullable=False),
        sa.Column("memory_mib", sa.BigInteger(), nullable=False),
        sa.Column("disk_gib", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.String(length=16), server_default="creating", nullable=False),
        sa.Column("status_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "status IN ('creating', 'running', 'stopped', 'frozen', 'failed', 'missing')",
            name=op.f("ck_instances_status"),
        ),
        sa.CheckConstraint("cpus > 0 AND memory_mib > 0 AND disk_gib > 0", name=op.f("ck_instances_limits")),
        sa.ForeignKeyConstraint(["host_id"], ["hosts.id"], name=op.f("fk_instances_host_id")),
        sa.ForeignKeyConstraint(["owner_id"], ["users.id"], name=op.f("fk_instances_owner_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_instances")),
    )
    op.create_index(op.f("ix_instances_host_id"), "instances", ["host_id"], unique=False)
    op.create_index(op.f("ix_instances_owner_id"), "instances", ["owner_id"], unique=False)
    op.create_index(
        "uq_instances_name", "instances", ["name"], unique=True, postgresql_where=sa.text("deleted_at IS NULL")
    )
    op.create_table(
        "refusals",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("reason", sa.String(length=32), nullable=False),
        sa.Column("brief", sa.Text(), nullable=False),
        sa.Column("hint", sa.Text(), server_default="", nullable=False),
        sa.Column("request", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_refusals_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_refusals")),
    )
    op.create_index(op.f("ix_refusals_user_id"), "refusals", ["user_id"], unique=False)
    op.create_table(
        "sign_ins",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("key_hash", sa.String(length=64), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_sign_ins_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sign_ins")),
        sa.UniqueConstraint("key_hash", name=op.f("uq_sign_ins_key_hash")),
    )
    op.create_index(op.f("ix_sign_ins_user_id"), "sign_ins", ["user_id"], unique=False)
    op.create_table(
        "bookings",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("account_id", sa.BigInteger(), nullable=False),
        sa.Column("host_id", sa.BigInteger(), nullable=False),
        sa.Column("instance_id", sa.BigInteger(), nullable=True),
        sa.Column("starts_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("booked_until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("note", sa.String(length=200), server_default="", nullable=False),
        sa.Column("request_key", sa.String(length=96), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("cancelled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("released_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("settled_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("ends_at > starts_at", name=op.f("ck_bookings_window")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_bookings_account_id")),
        sa.ForeignKeyConstraint(["host_id"], ["hosts.id"], name=op.f("fk_bookings_host_id")),
        sa.ForeignKeyConstraint(["instance_id"], ["instances.id"], name=op.f("fk_bookings_instance_id")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_bookings_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_bookings")),
        sa.UniqueConstraint("request_key", name=op.f("uq_bookings_request_key")),
    )
    op.create_index(
        "ix_bookings_unsettled",
        "bookings",
        ["host_id", "ends_at"],
        unique=False,
        postgresql_where=sa.text("settled_at IS NULL"),
    )
    op.create_index("ix_bookings_user_id_starts_at", "bookings", ["user_id", "starts_at"], unique=False)
    op.create_table(
        "operations",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("state", sa.String(length=16), server_default="queued", nullable=False),
        sa.Column("host_id", sa.BigInteger(), nullable=False),
        sa.Column("instance_id", sa.BigInteger(), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=True),
        sa.Column("step", sa.String(length=32), server_default="queued", nullable=False),
        sa.Column("percent", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("error", sa.Text(), server_default="", nullable=False),
        sa.Column("details", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("kind IN ('create', 'start', 'stop', 'restart', 'delete')", name=op.f("ck_operations_kind")),
        sa.CheckConstraint("state IN ('queued', 'running', 'done', 'failed')", name=op.f("ck_operations_state")),
        sa.CheckConstraint("percent BETWEEN 0 AND 100", name=op.f("ck_operations_percent")),
        sa.ForeignKeyConstraint(["host_id"], ["hosts.id"], name=op.f("fk_operations_host_id")),
        sa.ForeignKeyConstraint(["instance_id"], ["instances.id"], name=op.f("fk_operations_instance_id")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_operations_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_operations")),
    )
    op.create_index(op.f("ix_operations_host_id"), "operations", ["host_id"], unique=False)
    op.create_index(op.f("ix_operations_instance_id"), "operations", ["instance_id"], unique=False)
    op.create_index(
        "uq_operations_open",
        "operations",
        ["instance_id"],
        unique=True,
        postgresql_where=sa.text("state IN ('queued', 'running')"),
    )
    op.create_table(
        "allocations",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("booking_id", sa.BigInteger(), nullable=False),
        sa.Column("gpu_id", sa.BigInteger(), nullable=False),
        sa.Column("starts_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("released_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("attached_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("detached_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("trouble", sa.String(length=32), server_default="", nullable=False),
        sa.Column("trouble_text", sa.Text(), server_default="", nullable=False),
        sa.Column("trouble_at", sa.DateTime(timezone=True), nullable=True),
        postgresql.ExcludeConstraint(
            (sa.text("tstzrange(starts_at, ends_at)"), "&&"),
            (sa.text("int8range(gpu_id, gpu_id, '[]')"), "&&"),
            where=sa.text("released_at IS NULL"),
            using="gist",
            name="ex_allocations_overlap",
        ),
        sa.CheckConstraint("ends_at > starts_at", name=op.f("ck_allocations_window")),
        sa.ForeignKeyConstraint(["booking_id"], ["bookings.id"], name=op.f("fk_allocations_booking_id")),
        sa.ForeignKeyConstraint(["gpu_id"], ["gpus.id"], name=op.f("fk_allocations_gpu_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_allocations")),
    )
    op.create_index(op.f("ix_allocations_booking_id"), "allocations", ["booking_id"], unique=False)
    op.create_index(
        "ix_allocations_gpu_id_ends_at",
        "allocations",
        ["gpu_id", "ends_at"],
        unique=False,
        postgresql_where=sa.text("released_at IS NULL"),
    )
    op.create_table(
        "ledger_entries",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("account_id", sa.BigInteger(), nullable=False),
        sa.Column("booking_id", sa.BigInteger(), nullable=True),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("balance_after", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("actor", sa.String(length=64), server_default="", nullable=False),
        sa.Column("note", sa.String(length=200), server_default="", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "kind IN ('grant', 'hold', 'release', 'settle', 'adjust')", name=op.f("ck_ledger_entries_kind")
        ),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_ledger_entries_account_id")),
        sa.ForeignKeyConstraint(["booking_id"], ["bookings.id"], name=op.f("fk_ledger_entries_booking_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ledger_entries")),
        sa.UniqueConstraint("key", name=op.f("uq_ledger_entries_key")),
    )
    op.create_index("ix_ledger_entries_account_id_id", "ledger_entries", ["account_id", "id"], unique=False)
    op.create_index(op.f("ix_ledger_entries_booking_id"), "ledger_entries", ["booking_id"], unique=False)
    op.execute(LEDGER)
    op.execute(APPEND_ONLY)
    op.execute("INSERT INTO policies (id) VALUES (1)")


def downgrade() -> None:
    op.execute("DROP TRIGGER append_only ON audit_events")
    op.execute("DROP TRIGGER append_only ON ledger_entries")
    op.execute("DROP TRIGGER post ON ledger_entries")
    op.execute("DROP FUNCTION append_only")
    op.execute("DROP FUNCTION post_ledger_entry")
    op.drop_index(op.f("ix_ledger_entries_booking_id"), table_name="ledger_entries")
    op.drop_index("ix_ledger_entries_account_id_id", table_name="ledger_entries")
    op.drop_table("ledger_entries")
    op.drop_index(
        "ix_allocations_gpu_id_ends_at", table_name="allocations", postgresql_where=sa.text("released_at IS NULL")
    )
    op.drop_index(op.f("ix_allocations_booking_id"), table_name="allocations")
    op.drop_table("allocations")
    op.drop_index(
        "uq_operations_open", table_name="operations", postgresql_where=sa.text("state IN ('queued', 'running')")
    )
    op.drop_index(op.f("ix_operations_instance_id"), table_name="operations")
    op.drop_index(op.f("ix_operations_host_id"), table_name="operations")
    op.drop_table("operations")
    op.drop_index("ix_bookings_user_id_starts_at", table_name="bookings")
    op.drop_index("ix_bookings_unsettled", table_name="bookings", postgresql_where=sa.text("settled_at IS NULL"))
    op.drop_table("bookings")
    op.drop_index(op.f("ix_sign_ins_user_id"), table_name="sign_ins")
    op.drop_table("sign_ins")
    op.drop_index(op.f("ix_refusals_user_id"), table_name="refusals")
    op.drop_table("refusals")
    op.drop_index("uq_instances_name", table_name="instances", postgresql_where=sa.text("deleted_at IS NULL"))
    op.drop_index(op.f("ix_instances_owner_id"), table_name="instances")
    op.drop_index(op.f("ix_instances_host_id"), table_name="instances")
    op.drop_table("instances")
    op.drop_index(op.f("ix_api_tokens_user_id"), table_name="api_tokens")
    op.drop_table("api_tokens")
    op.drop_index("ix_users_state", table_name="users")
    op.drop_table("users")
    op.drop_index(op.f("ix_gpus_host_id"), table_name="gpus")
    op.drop_table("gpus")
    op.drop_table("policies")
    op.drop_table("hosts")
    op.drop_index("ix_audit_events_target", table_name="audit_events")
    op.drop_index("ix_audit_events_created_at", table_name="audit_events")
    op.drop_table("audit_events")
    op.drop_table("accounts")
