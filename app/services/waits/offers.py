"""Offers: bookings that are held for somebody until they say yes; else they go back whole, to the next in line."""

from __future__ import annotations

from app import clock
from app.errors import Conflict
from app.extensions import db
from app.language import gettext as _
from app.models import Phase, User, Wait, WaitState
from app.services import audit, changes
from app.services.waits import line


def accept(user: User, wait_id: int) -> Wait:
    """Take an offer; from then on it is a booking like any other. Raises NotFound, and Conflict once it is over."""
    line.take()
    wait = line.get(user, wait_id)
    if wait.state == WaitState.GRANTED:
        return wait  # sent twice
    require_open(wait)
    now = clock.now()
    if wait.booking is None or wait.decide_by is None:
        raise Conflict(_("Nothing is offered yet."), _("You are told as soon as something is."))
    if wait.decide_by <= now or wait.booking.phase(now) != Phase.UPCOMING:
        raise _over()
    wait.state, wait.closed_at = WaitState.GRANTED, now
    db.session.flush()
    audit.record(user.username, "wait.accepted", f"wait:{wait.id}", booking=wait.booking_id)
    return wait


def lapse(wait_id: int) -> None:
    """Close one whose time is over, with what it was offered; nothing if that was done meanwhile."""
    line.take()
    wait = db.session.get(Wait, wait_id, populate_existing=True)
    if wait is None or wait.id not in line.due():
        return
    offered = wait.state == WaitState.OFFERED
    given_back = offered and not give_back(wait, audit.SYSTEM)
    wait.state, wait.closed_at = WaitState.WITHDRAWN if given_back else WaitState.EXPIRED, clock.now()
    db.session.flush()
    if not given_back:
        audit.record(audit.SYSTEM, "wait.expired", f"wait:{wait.id}", offered=offered)


def give_back(wait: Wait, actor: str) -> bool:
    """Withdraw the booking that an offer is, for nothing; whether it was still there."""
    assert wait.booking_id is not None, "an offer has a booking"
    owner = db.session.get_one(User, wait.user_id)
    return changes.take_back(owner, wait.booking_id, actor=actor, wait=wait.id)


def require_open(wait: Wait) -> None:
    """Raise Conflict for one that is neither waiting nor offered any more."""
    if wait.state not in line.OPEN:
        raise _over()


def _over() -> Conflict:
    return Conflict(_("This is over: it went to the next in line, or its time has passed."), _("Join again."))
