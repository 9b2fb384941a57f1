"""What a live page counts of a GPU is counted as it is written, not by everybody who looks: programs that use it without
a booking, and for how long it did nothing."""

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None

_STRAYS = """jsonb_array_length(jsonb_path_query_array(processes,
'$[*] ? ((@.instance != "" || @.computes == true) && (@.booking == null || @.booking == 0))'))"""


def upgrade() -> None:
    op.add_column("gpus_now", sa.Column("strays", sa.Integer, sa.Computed(_STRAYS, persisted=True), nullable=False))
    op.add_column("gpus_now", sa.Column("still_since", sa.DateTime(timezone=True)))
    op.add_column("gpus_now", sa.Column("still_ms", sa.Integer))


def downgrade() -> None:
    for name in ("still_ms", "still_since", "strays"):
        op.drop_column("gpus_now", name)
