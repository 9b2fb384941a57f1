"""Bookings as a calendar that other programs read (RFC 5545).

Each entry says how often it was changed, and when last: programs that compare these take the change. What is cancelled
is not in it any more, and programs that read it again drop it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from flask_babel import force_locale
from icalendar import Calendar
from icalendar import Event as Entry
from sqlalchemy import func, select
from sqlalchemy.orm import joinedload, selectinload

from app import clock
from app.extensions import db
from app.language import gettext as _
from app.language import ngettext
from app.models import Allocation, AuditEvent, Booking, Feed, Host, Maintenance
from app.services import maintenance
from app.services.notice_bookings import Place
from app.services.notice_words import clean, language
from app.services.words import gpu_list

BACK = timedelta(days=31)  # how long what is over stays in it
MOST = 2000
REFRESH = timedelta(minutes=15)  # how often programs should ask
# What changes the time, the GPUs or the purpose of a booking, as the audit tells it.
CHANGES = (
    "booking.moved", "booking.released", "booking.reclaimed", "booking.no_show", "booking.gpu_replaced",
    "booking.resized", "booking.noted",
)  # fmt: skip


def of(feed: Feed, url: str, lab: ZoneInfo) -> bytes:
    """The feed's calendar, in its person's zone. `url`: how people reach Berth."""
    zone = Place.of(feed.user, url, lab).zone
    with force_locale(language(feed.user.locale or feed.locale)):
        calendar = Calendar()
        calendar.add("PRODID", "-//Berth//bookings//EN")
        calendar.add("VERSION", "2.0")
        calendar.add("X-WR-CALNAME", _title(feed))
        calendar.add("REFRESH-INTERVAL", REFRESH, parameters={"VALUE": "DURATION"})
        calendar.add("X-PUBLISHED-TTL", REFRESH)
        found = _bookings(feed)
        changed = _changed(found)
        for booking in found:
            entry = _entry(booking, url, zone, whose=feed.host_id is not None)
            _stamp(entry, *changed.get(booking.id, (0, booking.created_at)))
            calendar.add_component(entry)
        for work in _maintenances(feed):
            calendar.add_component(_of_work(work, url, zone))
        calendar.add_missing_timezones()
        return calendar.to_ical()


def _title(feed: Feed) -> str:
    host = db.session.get(Host, feed.host_id) if feed.host_id is not None else None
    return _("Berth: my GPUs") if host is None else _("Berth: GPUs of %(host)s", host=host.name)


def _bookings(feed: Feed) -> Sequence[Booking]:
    query = (
        select(Booking)
        .where(Booking.cancelled_at.is_(None), Booking.ends_at > clock.now() - BACK)
        .options(
            selectinload(Booking.allocations).joinedload(Allocation.gpu),
            joinedload(Booking.host, innerjoin=True),
            joinedload(Booking.user, innerjoin=True),
        )
        .order_by(Booking.ends_at.desc(), Booking.id.desc())
        .limit(MOST)  # what is long over goes first
    )
    own = Booking.user_id == feed.user_id if feed.host_id is None else Booking.host_id == feed.host_id
    return sorted(db.session.scalars(query.where(own)), key=lambda booking: (booking.starts_at, booking.id))


def _changed(found: Sequence[Booking]) -> dict[int, tuple[int, datetime]]:
    """How often each of them was changed and when last; only those that were."""
    targets = {f"booking:{booking.id}": booking.id for booking in found}
    query = (
        select(AuditEvent.target, func.count(), func.max(AuditEvent.created_at))
        .where(AuditEvent.target.in_(targets), AuditEvent.action.in_(CHANGES))
        .group_by(AuditEvent.target)
    )
    return {targets[target]: (count, last) for target, count, last in db.session.execute(query)}


def _stamp(entry: Entry, times: int, last: datetime) -> None:
    entry.add("SEQUENCE", times)
    entry.add("LAST-MODIFIED", last)
    entry.add("DTSTAMP", last)  # the same, in a calendar that is read and not sent


def _add_times(entry: Entry, of: Booking | Maintenance, zone: ZoneInfo) -> None:
    """Start and end by the zone's clock; in UTC where that shows an hour again, for it would mean the first (RFC 5545,
    3.3.5)."""
    for name, moment in (("DTSTART", of.starts_at), ("DTEND", of.ends_at)):
        local = moment.astimezone(zone)
        entry.add(name, moment.astimezone(UTC) if local.fold else local)


def _maintenances(feed: Feed) -> Sequence[Maintenance]:
    host = db.session.get(Host, feed.host_id) if feed.host_id is not None else None
    return maintenance.to_come(host) if host is not None else []


def _of_work(work: Maintenance, url: str, zone: ZoneInfo) -> Entry:
    entry = Entry()
    entry.add("UID", f"maintenance-{work.id}@{urlsplit(url).hostname}")
    _stamp(entry, 0, work.created_at)
    _add_times(entry, work, zone)
    entry.add("SUMMARY", _("Maintenance: %(reason)s", reason=clean(work.reason)) if work.reason else _("Maintenance"))
    entry.add("LOCATION", f"{work.host.name}, {gpu_list(block.gpu for block in work.blocks)}")
    return entry


def _entry(booking: Booking, url: str, zone: ZoneInfo, *, whose: bool) -> Entry:
    gpus = [allocation.gpu for allocation in booking.allocations]
    title = ngettext("%(num)s GPU on %(host)s", "%(num)s GPUs on %(host)s", len(gpus), host=booking.host.name)
    if whose:
        title = _("%(who)s: %(what)s", who=clean(booking.user.display_name), what=title)
    page = f"{url}/bookings/{booking.id}"
    entry = Entry()
    entry.add("UID", f"booking-{booking.id}@{urlsplit(url).hostname}")
    _add_times(entry, booking, zone)
    entry.add("SUMMARY", title)
    entry.add("LOCATION", f"{booking.host.name}, {gpu_list(gpus)}")
    if not whose:  # what somebody computes is nobody else's business; their own page says it
        entry.add("URL", page)
        entry.add("DESCRIPTION", "\n".join([*([clean(booking.note)] if booking.note else []), page]))
    entry.add("STATUS", "CONFIRMED")
    return entry
