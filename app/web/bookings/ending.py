"""What the end of a booking means, in words: for the banner on every page, and for the booking's own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from flask import g, request, url_for

from app import clock
from app.language import gettext as _
from app.language import ngettext
from app.models import Booking, Phase, SignIn
from app.services import aligning, audit, endings, noshows
from app.services.idle import sight, warned
from app.services.rules import noshow
from app.services.words import gpu_label, gpu_list
from app.web import idle_words
from app.web.bookings import shown, words
from app.web.bookings.blueprint import bp
from app.web.sessions import viewer
from app.web.times import moment_text

CLOCK = "HH:mm:ss"


@dataclass(frozen=True)
class Banner:
    """What goes soon, and where that can be changed: `link` to `url`. `more`: that further bookings end soon too."""

    text: str
    url: str
    link: str
    more: str = ""


@dataclass(frozen=True)
class Shared:
    """Programs that also hold a GPU of a booking that goes on, and end with this one. `button`: let both end together,
    at `ends_at`; "" where that cannot be had."""

    text: str
    button: str
    ends_at: datetime


@bp.app_template_global()
def ending_soon() -> Banner | None:
    """The one booking of the reader's that is given back for doing nothing, or else ends soonest, within minutes. None
    on its own pages: they say it anyway.

    Without one the answer came with the sign-in; with one it costs a query."""
    person = viewer()
    sign_in: SignIn | None = g.get("sign_in")
    if person is None or sign_in is None:
        return None
    here = (request.view_args or {}).get("booking_id")
    if sign_in.idle_due:
        for idle in warned.of(person):
            if idle.booking_id != here:
                link = _("Keep it") if sight.keeps_left(idle.booking_id) else _("Booking %(id)s", id=idle.booking_id)
                return Banner(idle_words.banner(idle), _page(idle.booking_id), link)
    found = endings.soonest(person) if sign_in.ends_soon else None
    return None if found is None or found.booking_id == here else _ends(found)


def _page(booking_id: int) -> str:
    return url_for("bookings.show", booking_id=booking_id, _anchor="actions")


def _ends(found: endings.Soon) -> Banner:
    text = ngettext(
        "Your %(num)s GPU on %(host)s goes at %(time)s (%(away)s).",
        "Your %(num)s GPUs on %(host)s go at %(time)s (%(away)s).",
        found.gpus,
        host=found.host,
        time=moment_text(found.ends_at, "HH:mm"),
        away=words.away(found.ends_at - clock.now()),
    )
    more = (
        ngettext("%(num)s more booking ends soon.", "%(num)s more bookings end soon.", found.more) if found.more else ""
    )
    return Banner(text, _page(found.booking_id), _("Extend"), more)


def lines(booking: Booking, now: datetime) -> list[str]:
    """What happens to the GPUs at the end, and what is not as it was booked."""
    said = [*_given_instead(booking), *_not_come(booking, now), *idle_words.lines(booking, now)]
    if booking.phase(now) in {Phase.UPCOMING, Phase.RUNNING}:
        said.append(_at_the_end(booking, endings.ends_of([booking])[booking.id]))
    elif shown.detaching(booking, now):
        said.append(_("The GPUs are being taken back."))
        grace = endings.ends_of([booking])[booking.id].grace
        if now < (killed_at := grace.killed_at(booking.ends_at)):
            said.append(_("What still uses them has until %(time)s to end.", time=moment_text(killed_at, CLOCK)))
    return said


def shared(booking: Booking, now: datetime) -> Shared | None:
    """The programs that hold GPUs of this running booking and of a later one of the same owner's."""
    others = shown.shared_with(booking)
    if booking.phase(now) != Phase.RUNNING or not others or (other := aligning.longest(booking, others)) is None:
        return None
    names = {
        str(entry["name"]): None
        for allocation in booking.allocations
        for entry in allocation.holders
        if other.id in entry["also"]
    }
    end = shown.short_end(other.ends_at, booking.ends_at)
    text = _(
        "%(programs)s also uses a GPU of your booking %(id)s, which goes on until %(end)s. It is ended when this one "
        "ends.",
        programs=_(", ").join(names),
        id=other.id,
        end=end,
    )
    no_room = _("This one cannot go on so long.")
    if aligning.can_go_on(booking, other.ends_at):
        return Shared(text, _("Let both end at %(end)s", end=end), other.ends_at)
    return Shared(f"{text} {no_room}", "", other.ends_at)


def _at_the_end(booking: Booking, end: endings.End) -> str:
    going = [allocation.gpu for allocation in booking.allocations if allocation.id in end.goes]
    if not going:
        return _("At the end the GPUs stay where they are: your next booking of them begins at once.")
    values = {"num": len(going), "gpus": gpu_list(going), "seconds": end.grace.seconds}
    if end.grace.before:
        return _(
            "Somebody has booked right after you. What uses %(gpus)s is asked to end at %(time)s, %(seconds)s s before "
            "the end, and killed at the end.",
            time=moment_text(end.grace.asked_at(booking.ends_at), CLOCK),
            **values,
        )
    if not end.grace.seconds:
        return ngettext(
            "At the end %(gpus)s is taken off at once, and what still uses it is killed.",
            "At the end %(gpus)s are taken off at once, and what still uses them is killed.",
            **values,
        )
    return ngettext(
        "At the end %(gpus)s is taken off at once. What still uses it gets %(seconds)s s to end, then it is killed.",
        "At the end %(gpus)s are taken off at once. What still uses them gets %(seconds)s s to end, then it is killed.",
        **values,
    )


def _not_come(booking: Booking, now: datetime) -> Iterator[str]:
    """What the rules do to a booking that no machine takes."""
    if (moment := noshow.ends_at(booking, now)) is not None:
        yield _(
            "No running machine of yours has taken the GPUs. Without one the booking ends by itself at %(time)s.",
            time=moment_text(moment),
        )
    if booking.released_at is not None and noshow.is_one(booking):
        events = audit.recent(20, f"booking:{booking.id}")
        if any(event.action == noshows.NO_SHOW for event in events):
            yield _("It ended by itself: no running machine of yours took its GPUs.")


def _given_instead(booking: Booking) -> Iterator[str]:
    for booked, given in endings.booked_instead(booking):
        yield _(
            "You were given %(given)s in place of %(booked)s, which could not be freed.",
            given=gpu_label(given),
            booked=gpu_label(booked),
        )
