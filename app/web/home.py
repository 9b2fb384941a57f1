"""Home: a GPU now, what runs or comes next, one's machine, what is left of one's quota."""

from __future__ import annotations

from dataclasses import replace

from flask import Blueprint, Response

from app import clock
from app.extensions import lab_zone
from app.models import Phase
from app.services import accounts, instances, own, policy, statement
from app.services.idle import warned
from app.web import idle_words, machine_words, quota
from app.web.bookings import shown
from app.web.render import render
from app.web.sessions import me, this_sign_in

bp = Blueprint("home", __name__)

NEXT = 3  # upcoming bookings that are worth the room


@bp.get("/")
def index() -> Response:
    """The first page after signing in."""
    now = clock.now()
    current = own.current(me())
    running = [booking for booking in current if booking.phase(now) == Phase.RUNNING]
    upcoming = [booking for booking in current if booking.phase(now) == Phase.UPCOMING][:NEXT]
    idle = {one.booking_id: idle_words.line(one) for one in (warned.of(me()) if this_sign_in().idle_due else ())}
    account = accounts.get(me().username).account
    standing = statement.standing(account, lab_zone()) if account is not None else None
    return render(
        "home/index.html",
        running=[
            (replace(shown.row(booking, now), state="idle"), idle[booking.id])
            if booking.id in idle
            else (shown.row(booking, now), shown.when_line(booking, now))
            for booking in running
        ],
        upcoming=[(shown.row(booking, now), shown.when_line(booking, now)) for booking in upcoming],
        machines=machine_words.cards(instances.of_user(me())),
        self_service=policy.current().self_service or me().is_admin,
        standing=standing,
        sentence=quota.sentence(standing) if standing is not None else "",
    )
