"""One booking, live: the page and the fragment that asks for itself again while something may change."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from flask import Response, request, url_for

from app import clock
from app.errors import DomainError
from app.language import gettext as _
from app.models import Booking, Phase
from app.services import bookings, room, statement
from app.services.bookings import Ask
from app.services.rules import fees, tariff
from app.services.waits import line
from app.web import idle_words, live
from app.web.bookings import ending, late, obstacles, series_page, shown, usage, words
from app.web.bookings.blueprint import ID, bp, slot
from app.web.bookings.book import book_again
from app.web.machine_words import silence_of
from app.web.quota import describe
from app.web.render import is_fragment, render
from app.web.sessions import me


@bp.get(f"/{ID}")
def show(booking_id: int) -> Response:
    """A booking of one's own (or anybody's, for an admin)."""
    return page(bookings.get(me(), booking_id))


def page(booking: Booking, *, refused: DomainError | None = None, status: int = 200) -> Response:
    """The page; `refused`: what was just asked for and why it was not done."""
    now = clock.now()
    phase, poll = booking.phase(now), shown.poll_seconds(booking, now)
    idle = idle_words.warned(booking, now)
    key = shown.key(booking, now) + (f"-{idle.key}" if idle else "")
    trouble = shown.trouble(booking) if phase == Phase.RUNNING else None
    obstacle = obstacles.explain(booking, trouble) if trouble else None
    word = f"{shown.word(booking, now)}: {obstacle.brief}" if obstacle else shown.word(booking, now)
    context: dict[str, Any] = {
        "booking": booking,
        "what": words.what_of(booking),
        "word": word,
        "state": shown.state(booking, now),
        "when_line": shown.when_line(booking, now),
        "span": words.span(booking.starts_at, booking.ends_at),
        "cost": tariff.cost(booking),
        "used": usage.sentence(booking),
        "steps": shown.steps(booking, now),
        "obstacle": obstacle,
        "trouble": trouble,
        "theirs": trouble is not None and (trouble.attached_at is not None or trouble.trouble in fees.OWN_TROUBLE),
        "silence": silence_of(booking.host) if phase == Phase.RUNNING or poll == shown.OFTEN else "",
        "lines": [(one, describe(replace(one, booking=None))) for one in statement.of_booking(booking)],
        "poll": poll,
        "poll_url": url_for("bookings.show", booking_id=booking.id, seen=key),
        "end_lines": late.lines(booking, now) + ending.lines(booking, now),
        "offer": line.offered(booking),
    }
    changed = request.args.get("seen") != key
    if changed or not is_fragment():
        context |= _actions(booking, phase) | live.of_booking(booking) | {"idle": idle}
    if not is_fragment():
        context["of_series"] = series_page.place_of(booking)
    return render(
        "bookings/show.html", fragment="bookings/_live.html", changed=changed, refused=refused, status=status, **context
    )


def _actions(booking: Booking, phase: Phase) -> dict[str, Any]:
    """What can be done with it now."""
    found = room.after(booking, slot())
    rest = tariff.rest(booking, clock.now())
    ask = Ask(
        starts_at=booking.starts_at,
        ends_at=booking.booked_until,
        gpu_ids=tuple(allocation.gpu_id for allocation in booking.allocations),
        note=booking.note,
        account=booking.account.name if booking.account.is_team else "",
    )
    return {
        "phase": phase,
        "room": found,
        "seen": shown.seen(booking),
        "longer": [
            (
                _("+%(hours)s h → %(end)s", hours=step.hours, end=shown.short_end(step.ends_at, booking.ends_at)),
                step.ends_at,
            )
            for step in (found.steps if found else ())
            if not step.refused
        ],
        "at_most": (
            _("Extend to %(end)s", end=shown.short_end(found.at_most, booking.ends_at))
            if found and found.at_most
            else ""
        ),
        "rest": rest,
        "shared": ending.shared(booking, clock.now()),
        "again_url": book_again(ask),
    }
