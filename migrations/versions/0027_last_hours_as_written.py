"""A GPU's last hour is put together as its minutes come, not by everybody who looks."""

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None


_FILL = """
UPDATE gpus_now SET curve_from = date_trunc('minute', now()) - interval '1 hour', curve = (
  SELECT array_agg((
    SELECT least(100, round((100 * sum(busy_ms))::float / nullif(sum(sampled_ms), 0))) FROM usage_minutes
    WHERE gpu_id = gpus_now.gpu_id AND usage_minutes.minute = minutes.minute
  ) ORDER BY minutes.minute)
  FROM generate_series(
    date_trunc('minute', now()) - interval '1 hour', date_trunc('minute', now()), interval '1 minute'
  ) AS minutes (minute)
)
"""


def upgrade() -> None:
    op.add_column("gpus_now", sa.Column("curve_from", sa.DateTime(timezone=True)))
    op.add_column("gpus_now", sa.Column("curve", sa.ARRAY(sa.SmallInteger)))
    op.execute(_FILL)  # else each would look unmeasured until its next minute comes


def downgrade() -> None:
    for name in ("curve", "curve_from"):
        op.drop_column("gpus_now", name)
