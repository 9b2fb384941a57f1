"""My bookings: what runs, what comes, what is over, and what was refused."""

from __future__ import annotations

from flask import Response, request, url_for

from app import clock
from app.models import Phase
from app.services import own, refusals
from app.web.bookings import form as forms
from app.web.bookings import words
from app.web.bookings.blueprint import bp, slot
from app.web.bookings.form_page import shown_offer
from app.web.bookings.shown import row
from app.web.render import render
from app.web.sessions import me


@bp.get("")
def index() -> Response:
    """All of one's bookings, by what they are at."""
    now = clock.now()
    before = request.args.get("before", type=int)
    current = own.current(me()) if before is None else []
    past, more = own.past(me(), before)
    return render(
        "bookings/index.html",
        running=[row(booking, now) for booking in current if booking.phase(now) == Phase.RUNNING],
        upcoming=[row(booking, now) for booking in current if booking.phase(now) == Phase.UPCOMING],
        past=[row(booking, now) for booking in past],
        earlier=url_for("bookings.index", before=more) if more else "",
        first_page=before is None,
        refused=[
            (refusal, words.span(ask.starts_at or refusal.created_at, ask.ends_at))
            for refusal in (refusals.mine(me()) if before is None else [])
            for ask in [refusals.ask_of(refusal)]
        ],
    )


@bp.get("/refused/<int(min=1, max=9223372036854775807):refusal_id>")
def refused(refusal_id: int) -> Response:
    """Why a request was refused, and what would work now."""
    refusal = refusals.get(me(), refusal_id)
    ask = refusals.ask_of(refusal)
    error, offers = refusals.offers(me(), ask, slot())
    return render(
        "bookings/refused.html",
        refusal=refusal,
        ask=ask,
        asked=words.span(ask.starts_at or refusal.created_at, ask.ends_at),
        count=len(ask.gpu_ids) or ask.count,
        still=error,
        offers=[shown_offer(offer) for offer in offers],
        again={name: value for name, value in forms.as_values(ask).items() if name not in {"start", "end"}},
    )
