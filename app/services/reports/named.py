"""Which machine had a name at a moment: today's names say nothing of then, since machines are renamed and replaced."""

from __future__ import annotations

from sqlalchemy import BigInteger, String, column, text

from app.models.base import UtcDateTime

# A row for each name of each machine, from `since` to `until`, the latter not included. While one is being renamed its
# host knows it by either name, and nobody else is given one of these (services.names). A rename that failed before the
# host did it changed nothing.
_NAMES = text("""
WITH renames AS (
  SELECT id, instance_id, details ->> 'old' AS old, created_at, finished_at FROM operations
  WHERE kind = 'rename' AND (state <> 'failed' OR details ->> 'renamed' = 'true')
)
SELECT i.owner_id, r.old AS name,
       coalesce(lag(r.created_at) OVER (PARTITION BY i.id ORDER BY r.id), i.created_at) AS since,
       least(coalesce(r.finished_at, 'infinity'), i.deleted_at) AS until
FROM renames AS r JOIN instances AS i ON i.id = r.instance_id
UNION ALL
SELECT owner_id, name, coalesce((SELECT max(created_at) FROM renames WHERE instance_id = i.id), created_at),
       coalesce(deleted_at, 'infinity')
FROM instances AS i""")
NAMED = _NAMES.columns(
    column("owner_id", BigInteger),
    column("name", String),
    column("since", UtcDateTime),
    column("until", UtcDateTime),
).subquery("named")
