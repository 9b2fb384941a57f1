"""Who waited for GPUs that others had, for how long, and what came of it.

A place on the waiting list counts in a span in which it was answered (booked or offered) or closed, and in one at whose
end it was still open. One that stands over the end of a month is waiting in that month, and answered in the next.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import text

from app.extensions import db
from app.services.reports.pieces import Key, Scope
from app.services.reports.spans import Span


@dataclass(frozen=True)
class Waits:
    """How many places came to what; their sum is `places`. `median`, `longest`: seconds from joining to the answer, the
    close or, for those that are open, the end of the span.

    `booked`: also offers that were taken. `offered`: an offer stands. `not_taken`: an offer lapsed or was given back.
    `in_vain`: its time was over before anything was free. `left`: given up unanswered. `waiting`: open at the end."""

    places: int = 0
    booked: int = 0
    offered: int = 0
    not_taken: int = 0
    in_vain: int = 0
    left: int = 0
    waiting: int = 0
    median: float = 0.0
    longest: float = 0.0


# Of a wish: what it named, be it by one of its GPUs; 0 or "" where any would do.
_KEYS = {
    Key.PERSON: "w.user_id",
    Key.TEAM: "CASE WHEN w.account LIKE 'team:%' THEN a.id ELSE 0 END",
    Key.HOST: "coalesce(g.host_id, h.id, 0)",
    Key.MODEL: "coalesce(g.model, w.model)",
}
_QUERY = """
WITH counted AS (
  SELECT {key} AS key, date_part('epoch', least(over, :until) - w.created_at) AS waited,
         CASE WHEN over IS NULL OR over >= :until THEN 'waiting'
              WHEN granted_at IS NULL THEN CASE w.state WHEN 'expired' THEN 'in_vain' ELSE 'left' END
              WHEN w.state = 'granted' THEN 'booked' WHEN w.state = 'offered' THEN 'offered'
              ELSE 'not_taken' END AS came_to
  FROM waits AS w CROSS JOIN LATERAL (SELECT least(w.granted_at, w.closed_at) AS over) AS o
  LEFT JOIN accounts AS a ON a.name = w.account
  LEFT JOIN gpus AS g ON g.id = CAST(w.gpu_ids ->> 0 AS bigint)
  LEFT JOIN hosts AS h ON h.name = w.host
  WHERE w.created_at < :until AND coalesce(least(w.granted_at, w.closed_at), 'infinity') >= :start{scope}
)
SELECT grouping(key) AS is_total, key, count(*) AS places,
       count(*) FILTER (WHERE came_to = 'booked') AS booked, count(*) FILTER (WHERE came_to = 'offered') AS offered,
       count(*) FILTER (WHERE came_to = 'not_taken') AS not_taken,
       count(*) FILTER (WHERE came_to = 'in_vain') AS in_vain, count(*) FILTER (WHERE came_to = 'left') AS "left",
       count(*) FILTER (WHERE came_to = 'waiting') AS waiting,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY waited) AS median, max(waited) AS longest
FROM counted GROUP BY GROUPING SETS ((key), ())
"""


def of(span: Span, key: Key, scope: Scope) -> tuple[Waits, dict[Any, Waits]]:
    """All of a span together, and each person's, team's, host's or model's; by people where the key is none of these.

    The scope is a person's or a team's, or everybody's."""
    names = {"user_id": "w.user_id", "account_id": "a.id"}
    condition = "".join(f" AND {names[name]} = :{name}" for name in scope.values)
    statement = _QUERY.format(key=_KEYS.get(key, _KEYS[Key.PERSON]), scope=condition)
    found: dict[Any, Waits] = {}
    whole = Waits()
    if span.until <= span.start:  # all of it is to come: nobody knows yet
        return whole, found
    values = {"start": span.start, "until": span.until} | scope.values
    for is_total, one, *numbers in db.session.execute(text(statement), values):
        if is_total:
            whole = Waits(*(number or 0 for number in numbers))
        else:
            found[one] = Waits(*numbers)
    return whole, found
