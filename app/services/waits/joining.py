"""Joining the waiting list, leaving it, and coming back to one's place."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import func, select

from app import clock
from app.errors import InvalidInput, RuleRefused
from app.extensions import db, lab_zone
from app.language import gettext as _
from app.models import User, Wait, WaitState
from app.services import audit, bookings, claims, payers
from app.services.bookings import Ask
from app.services.rules import check, classes
from app.services.rules.check import Asked, Standing
from app.services.rules.terms import Rules
from app.services.waits import line, offers
from app.services.windows import Window, ceil_to_grid, floor_to_grid, in_utc, snapped

MOST = 5  # open ones of one person
UNDO = timedelta(minutes=10)


@dataclass(frozen=True)
class Wanted:
    """What somebody would wait for: a booking as they would ask for it; with `seconds` any so long within its start
    and end. `by_itself`: book it as soon as it can be; else offer it."""

    ask: Ask
    seconds: int | None = None
    by_itself: bool = True


def join(user: User, wanted: Wanted, slot: int) -> Wait:
    """Stand at the end of the line. Raises InvalidInput, NotAllowed or RuleRefused for what no waiting would bring."""
    ask = wanted.ask
    line.take()  # so that the order of the ids is the order in which people joined
    key = f"{user.id}:{ask.request_key[:64]}" if ask.request_key else None
    if key and (twin := db.session.scalar(select(Wait).where(Wait.request_key == key))):
        return twin
    bookings.require_note(ask.note)
    rules = classes.rules_for(payers.account_id(user, ask.account))
    window, seconds = _window(wanted, rules, slot)
    _require_sense(ask, window, seconds, rules)
    _require_few(user)
    wait = Wait(
        user_id=user.id, account=ask.account, gpu_ids=sorted(set(ask.gpu_ids)), model=ask.model, host=ask.host,
        count=len(set(ask.gpu_ids)) or ask.count, seconds=seconds, starts_at=window.starts_at, ends_at=window.ends_at,
        by_itself=wanted.by_itself, note=ask.note, request_key=key, state=WaitState.WAITING, created_at=clock.now(),
    )  # fmt: skip
    db.session.add(wait)
    db.session.flush()
    audit.record(
        user.username, "wait.joined", f"wait:{wait.id}", count=wait.count, seconds=seconds,
        starts_at=wait.starts_at.isoformat(), ends_at=wait.ends_at.isoformat(),
    )  # fmt: skip
    return wait


def leave(user: User, wait_id: int) -> Wait:
    """Give up one's place, or an offer, all of which goes back. Raises NotFound, and Conflict once it is over."""
    line.take()
    wait = line.get(user, wait_id)
    offers.require_open(wait)
    if wait.state == WaitState.OFFERED:
        offers.give_back(wait, user.username)
    wait.state, wait.closed_at = WaitState.WITHDRAWN, clock.now()
    db.session.flush()
    audit.record(user.username, "wait.left", f"wait:{wait.id}")
    return wait


def can_return(wait: Wait) -> bool:
    """Whether its person can still change their mind: soon, and while it could be served."""
    if wait.state != WaitState.WITHDRAWN or wait.booking_id is not None or wait.closed_at is None:
        return False
    now = clock.now()
    return now - wait.closed_at < UNDO and wait.ends_at - timedelta(seconds=wait.seconds) > now


def come_back(user: User, wait_id: int) -> Wait:
    """Stand where one stood before leaving. Raises NotFound, and RuleRefused when that is not possible any more."""
    line.take()
    wait = line.get(user, wait_id)
    if wait.state == WaitState.WAITING:
        return wait  # asked for twice
    if not can_return(wait):
        raise RuleRefused(_("This place on the waiting list is gone."), _("Join again, at its end."), rule="phase")
    _require_few(wait.user)
    wait.state, wait.closed_at = WaitState.WAITING, None
    db.session.flush()
    audit.record(user.username, "wait.returned", f"wait:{wait.id}")
    return wait


def _window(wanted: Wanted, rules: Rules, slot: int) -> tuple[Window, int]:
    """From when to when, on the grid of the account, and for how many seconds."""
    ask, now, slot = wanted.ask, clock.now(), rules.slot(slot)
    whole = snapped(ask.starts_at, ask.ends_at, now, slot)
    if wanted.seconds is None:
        if whole.starts_at <= now:
            raise InvalidInput(
                _("An exact time that begins now cannot be waited for."),
                _("Give a later start, or say for how long within that time."),
                field="hours",
            )
        return whole, whole.seconds
    seconds = -(-wanted.seconds // slot) * slot
    end = floor_to_grid(in_utc(ask.ends_at, "ends_at"), slot)
    if seconds <= 0:
        raise InvalidInput(_("Give a duration in hours, such as 6 or 1.5."), field="hours")
    if whole.starts_at + timedelta(seconds=seconds) > end:
        raise InvalidInput(
            _("That long does not fit between the start and the end."), _("Choose a later end."), field="hours"
        )
    return Window(whole.starts_at, end), seconds


def _require_sense(ask: Ask, window: Window, seconds: int, rules: Rules) -> None:
    """Refuse what nobody could be given with all GPUs free and all hours left."""
    gpus = claims.named_gpus(ask, rules) if ask.gpu_ids else claims.enough_gpus(ask, rules)
    now, slot_of = clock.now(), rules.slot(1)
    first = max(window.starts_at, ceil_to_grid(now + rules.notice, slot_of))
    start = window.starts_at if window.seconds == seconds else first
    asked = Asked(
        Window(start, start + timedelta(seconds=seconds)), len(set(ask.gpu_ids)) or ask.count, now,
        models=frozenset(gpu.model for gpu in gpus) if ask.gpu_ids else frozenset(),
    )  # fmt: skip
    for refusal in check.broken(asked, Standing(), rules, lab_zone()):
        raise refusal


def _require_few(user: User) -> None:
    query = select(func.count()).select_from(Wait).where(Wait.user_id == user.id, Wait.state.in_(line.OPEN))
    if (db.session.scalar(query) or 0) >= MOST:
        raise RuleRefused(
            _("You are on the waiting list %(max)s times already.", max=MOST),
            _("Leave one of these places first."),
            rule="waits",
            limit=MOST,
        )
