"""A booking as its pages show it: its state in a word, what is done and what is to come."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from app.language import gettext as _
from app.models import Allocation, Booking, Phase
from app.services.rules import tariff
from app.services.windows import Window
from app.services.words import when
from app.web import states, times
from app.web.bookings import words
from app.web.times import moment_text

SOON = timedelta(minutes=15)
CLOSE = timedelta(seconds=30)  # before a boundary: look often
PATIENCE = timedelta(minutes=5)  # after this, something that does not happen is asked for less often
OFTEN, SELDOM = 2, 15  # seconds between two looks


@dataclass(frozen=True)
class Row:
    """A booking in a list; its host and allocations are loaded."""

    booking: Booking
    what: str
    span: str
    state: str
    cost: int


@dataclass(frozen=True)
class Step:
    """One station of a booking. `place`: done, current or coming."""

    word: str
    at: datetime | None
    place: str


def state(booking: Booking, now: datetime) -> str:
    """The code of its state in app.web.states; "failed": its GPUs are not attached, for a reason that is known."""
    phase = booking.phase(now)
    if phase == Phase.CANCELLED:
        return "cancelled"
    if phase == Phase.UPCOMING:
        return "booked"
    if phase == Phase.PAST or booking.released_at is not None:  # one given back within its first second keeps that
        return "ended_early" if booking.released_at is not None else "ended"
    if trouble(booking):
        return "failed"
    if not all(allocation.attached_at for allocation in booking.allocations):
        return "attaching"
    return "ends_soon" if booking.ends_at - now <= SOON else "in_use"


def trouble(booking: Booking) -> Allocation | None:
    """The first allocation that could not be attached, if any."""
    return next((allocation for allocation in booking.allocations if allocation.trouble), None)


def word(booking: Booking, now: datetime) -> str:
    """The state in words, as in the heading."""
    code = state(booking, now)
    return _("Not attached") if code == "failed" else str(states.state_of(code).word)


def row(booking: Booking, now: datetime) -> Row:
    """A booking for a list."""
    return Row(
        booking,
        words.what_of(booking),
        words.span(booking.starts_at, booking.ends_at),
        state(booking, now),
        tariff.cost(booking),
    )


def when_line(booking: Booking, now: datetime) -> str:
    """The one moment that matters: absolute first, relative second."""
    phase = booking.phase(now)
    if phase == Phase.CANCELLED and booking.cancelled_at is not None:
        return _("Cancelled %(when)s", when=moment_text(booking.cancelled_at))
    start, end = moment_text(booking.starts_at), moment_text(booking.ends_at)
    if phase == Phase.UPCOMING:
        return _(
            "Starts %(when)s (%(away)s), ends %(end)s", when=start, away=words.away(booking.starts_at - now), end=end
        )
    if phase == Phase.RUNNING:
        return _("Ends %(when)s (%(away)s)", when=end, away=words.away(booking.ends_at - now))
    return _("Ended %(when)s", when=end)


def steps(booking: Booking, now: datetime) -> list[Step]:
    """The stations, in order."""
    phase = booking.phase(now)
    booked = Step(_("Booked"), booking.created_at, "current" if phase == Phase.UPCOMING else "done")
    if phase == Phase.CANCELLED:
        return [booked, Step(_("Cancelled"), booking.cancelled_at, "current")]
    attached = _latest([allocation.attached_at for allocation in booking.allocations])
    code = state(booking, now)
    attaching = Step(
        _("Not attached") if code == "failed" else _("Attaching"),
        booking.starts_at,
        "current" if code in {"attaching", "failed"} else _place(booking.starts_at, now),
    )
    in_use = Step(
        _("In use"), attached, "current" if code in {"in_use", "ends_soon"} else "done" if attached else "coming"
    )
    if phase == Phase.PAST:
        return [booked, *([attaching, in_use] if attached else []), *_ends(booking, code)]
    return [booked, attaching, in_use, Step(_("Ends"), booking.ends_at, "coming")]


def detaching(booking: Booking, now: datetime) -> bool:
    """Whether it is over and its GPUs are not seen to be gone yet."""
    return booking.ends_at <= now and any(a.attached_at and not a.detached_at for a in booking.allocations)


def poll_seconds(booking: Booking, now: datetime) -> int:
    """How soon its page should look again; 0 for never: nothing changes any more."""
    phase = booking.phase(now)
    if phase == Phase.CANCELLED:
        return 0
    if phase == Phase.PAST:
        if not detaching(booking, now):
            return 0
        return OFTEN if now - booking.ends_at < PATIENCE else SELDOM
    if phase == Phase.UPCOMING:
        return OFTEN if booking.starts_at - now <= CLOSE else SELDOM
    if booking.ends_at - now <= CLOSE or state(booking, now) in {"attaching", "failed"}:
        return OFTEN
    return SELDOM


def key(booking: Booking, now: datetime) -> str:
    """Changes when the state or the end does, or what else hangs on its end."""
    others = "." + ".".join(map(str, shared_with(booking)))
    return (
        f"{state(booking, now)}-{int(booking.ends_at.timestamp())}-{int(detaching(booking, now))}{others.rstrip('.')}"
    )


def shared_with(booking: Booking) -> list[int]:
    """The other bookings whose GPUs are held by programs that hold this one's, when last looked."""
    return sorted(
        {int(number) for allocation in booking.allocations for entry in allocation.holders for number in entry["also"]}
    )


def seen(booking: Booking) -> str:
    """Its start and end, for a form that must not change it once they are others."""
    return as_text(Window(booking.starts_at, booking.ends_at))


def as_text(window: Window) -> str:
    """A window for a hidden field."""
    return f"{window.starts_at.isoformat()} {window.ends_at.isoformat()}"


def short_end(end: datetime, reference: datetime) -> str:
    """`22:00`, with the day where it is another than the reference's."""
    zone = times.viewer_zone()
    same_day = end.astimezone(zone).date() == reference.astimezone(zone).date()
    return f"{end.astimezone(zone):%H:%M}" if same_day else when(end)


def _ends(booking: Booking, code: str) -> list[Step]:
    attached = [allocation for allocation in booking.allocations if allocation.attached_at]
    gone = _latest([allocation.detached_at for allocation in attached])
    ended = Step(str(states.state_of(code).word), booking.ends_at, "done" if attached else "current")
    if not attached:
        return [ended]
    return [ended, Step(_("GPUs taken back") if gone else _("Taking the GPUs back"), gone, "current")]


def _latest(moments: list[datetime | None]) -> datetime | None:
    """The last of them, if all are there."""
    return max((moment for moment in moments if moment is not None), default=None) if all(moments) else None


def _place(moment: datetime, now: datetime) -> str:
    return "done" if moment <= now else "coming"
