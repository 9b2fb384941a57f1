"""What a busy minute is: the one answer for the live pages, the metrics, and for what is given back.

On top of it they look for different things. A live page says of one GPU for how long it was seen to do nothing since it
was attached (services.activity). What is given back is a whole booking, so `judging` is slower to say so: it begins
anew when its owner extends it and after a hole in what was measured, and one busy GPU keeps them all.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, ScalarSelect, SQLColumnExpression, select

from app.models import Consumer, Policy, UsageMinute

PERCENT = select(Policy.idle_percent).scalar_subquery()
# Of a GPU since it was attached these are its booking's: what others do on it does not count as its work. A subquery,
# not a join: it is asked only of a row that was busy.
IS_BOOKED = select(Consumer.booking_id).where(Consumer.id == UsageMinute.consumer_id).scalar_subquery().is_not(None)


def is_busy(
    busy_ms: SQLColumnExpression[int], sampled_ms: SQLColumnExpression[int], percent: int | ScalarSelect[int] = PERCENT
) -> ColumnElement[bool]:
    """Whether kernels ran for so much of what was measured (percent; the lab's rule if not given)."""
    return (busy_ms > 0) & (busy_ms * 100 >= sampled_ms * percent)
