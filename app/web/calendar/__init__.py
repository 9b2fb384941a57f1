"""The calendar: a day, a week or a month of all hosts, the open ones by GPU; the same as a list; and on a phone."""

from app.web.calendar import moves, routes  # noqa: F401 - their routes
from app.web.calendar.blueprint import bp, short

__all__ = ["bp", "short"]
