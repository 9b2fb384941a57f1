"""Sentences about bookings that several pages share."""

from __future__ import annotations

from datetime import datetime, timedelta

from app.language import gettext as _
from app.language import ngettext
from app.models import Booking
from app.services.bookings import Proposal
from app.services.windows import hours_text
from app.web import times


def what(count: int, host: str) -> str:
    """`2 GPUs on lab03`."""
    return ngettext("%(num)s GPU on %(host)s", "%(num)s GPUs on %(host)s", count, host=host)


def what_of(booking: Booking) -> str:
    """The same for a booking whose host and allocations are loaded."""
    return what(len(booking.allocations), booking.host.name)


def span(start: datetime, end: datetime) -> str:
    """`Tue 4 Nov 20:00 to Wed 5 Nov 08:00 (next day), 12 h`."""
    zone = times.viewer_zone()
    days = (end.astimezone(zone).date() - start.astimezone(zone).date()).days
    values = {"start": times.moment_text(start), "length": length(int((end - start).total_seconds()))}
    if days == 0 and not times.differs_from_lab(end):
        return _("%(start)s to %(end)s, %(length)s", end=times.moment_text(end, "HH:mm"), **values)
    if days == 1:
        return _("%(start)s to %(end)s (next day), %(length)s", end=times.moment_text(end), **values)
    return _("%(start)s to %(end)s, %(length)s", end=times.moment_text(end), **values)


def length(seconds: int) -> str:
    """`12 h`, `3 h 20 min`, `45 min`; seconds only below a minute."""
    if seconds < 60:
        return _("%(seconds)s s", seconds=seconds)
    hours, minutes = divmod(round(seconds / 60), 60)
    if not hours:
        return _("%(minutes)s min", minutes=minutes)
    return _("%(hours)s h %(minutes)s min", hours=hours, minutes=minutes) if minutes else _("%(hours)s h", hours=hours)


def proposed(proposal: Proposal) -> str:
    """`2 GPUs on lab03, Tue 4 Nov 20:00 to Wed 5 Nov 08:00 (next day), 12 h.`"""
    return _(
        "%(what)s, %(span)s.",
        what=what(len(proposal.gpus), proposal.gpus[0].host.name),
        span=span(proposal.window.starts_at, proposal.window.ends_at),
    )


def price(proposal: Proposal) -> str:
    """`Costs 24 GPU-hours; 76 of 100 left after.`"""
    cost = _(
        "Costs %(cost)s GPU-hours; %(after)s of %(before)s left after.",
        cost=hours_text(proposal.cost),
        after=hours_text(proposal.free_after),
        before=hours_text(proposal.free_after + proposal.cost),
    )
    plain = len(proposal.gpus) * proposal.window.seconds
    if proposal.cost == plain:
        return cost
    weighted = _("It is %(hours)s GPU-hours of time, weighted by your rules.", hours=hours_text(plain))
    return f"{cost} {weighted}"


def away(distance: timedelta) -> str:
    """`in 3 h 20 min`, `in 3 days 6 h`."""
    seconds = max(int(distance.total_seconds()), 0)
    if seconds < 48 * 3600:
        return _("in %(length)s", length=length(seconds))
    days, hours = divmod(seconds // 3600, 24)
    return _("in %(days)s days %(hours)s h", days=days, hours=hours)
