"""Who is in the line, and where."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Select, exists, func, or_, select
from sqlalchemy.orm import joinedload, selectinload

from app import clock
from app.errors import NotFound
from app.extensions import db
from app.language import gettext as _
from app.models import Booking, Gpu, User, UserState, Wait, WaitState
from app.services.windows import Window

LINE = 0x62657275  # PostgreSQL's advisory lock; any number that is Berth's own
OPEN = (WaitState.WAITING, WaitState.OFFERED)
KEPT = 20  # closed ones that a person sees
_WHOLE = (
    joinedload(Wait.booking).options(joinedload(Booking.host), selectinload(Booking.allocations)),
    joinedload(Wait.user),
)


def take() -> None:
    """Let nobody else change the line until this transaction ends. Always before an account's lock."""
    db.session.execute(select(func.pg_advisory_xact_lock(LINE)))


def anybody() -> bool:
    """Whether anybody waits at all; asked often, and answered by a small index."""
    return bool(db.session.scalar(select(exists().where(Wait.state.in_(OPEN)))))


def waiting() -> list[Wait]:
    """Those who can be given something, first come first, with their people."""
    query = select(Wait).join(User).where(Wait.state == WaitState.WAITING, User.state == UserState.ACTIVE)
    return list(db.session.scalars(_fresh(query.options(joinedload(Wait.user)).order_by(Wait.id))))


def everybody() -> list[Wait]:
    """All who wait or have an offer, first come first."""
    query = select(Wait).where(Wait.state.in_(OPEN)).options(*_WHOLE).order_by(Wait.id)
    return list(db.session.scalars(_fresh(query)))


def mine(user: User, *, over: bool = True) -> list[Wait]:
    """A person's own: those that are open, first come first, then the latest that are `over`.

    In one statement: what is granted between two would be in both."""
    own, is_open = Wait.user_id == user.id, Wait.state.in_(OPEN)
    closed = select(Wait.id).where(own, ~is_open).order_by(Wait.closed_at.desc(), Wait.id.desc()).limit(KEPT)
    asked = or_(is_open, Wait.id.in_(closed)) if over else is_open
    found = db.session.scalars(_fresh(select(Wait).where(own, asked).options(*_WHOLE).order_by(Wait.id))).all()
    ended = [wait for wait in found if wait.state not in OPEN]
    return [
        *(wait for wait in found if wait.state in OPEN),
        *sorted(ended, key=lambda wait: (wait.closed_at, wait.id), reverse=True),
    ]


def get(user: User, wait_id: int) -> Wait:
    """One of this person's (or, for an admin, anybody's). Raises NotFound."""
    found = db.session.scalar(_fresh(select(Wait).where(Wait.id == wait_id).options(*_WHOLE)))
    if found is None or (found.user_id != user.id and not user.is_admin):
        raise NotFound(_("There is no place %(id)s of yours on the waiting list.", id=wait_id))
    return found


def offered(booking: Booking) -> Wait | None:
    """The offer that a booking still is, if it is one."""
    open_ones = (Wait.booking_id == booking.id, Wait.state == WaitState.OFFERED)
    return db.session.scalar(select(Wait).where(*open_ones))


def due() -> list[int]:
    """Those whose time is over, and offers that were not taken in time or given back."""
    now = clock.now()
    late = Wait.ends_at - func.make_interval(0, 0, 0, 0, 0, 0, Wait.seconds) <= now
    not_taken = or_(Wait.decide_by <= now, Booking.cancelled_at.is_not(None))
    query = (
        select(Wait.id)
        .outerjoin(Booking, Booking.id == Wait.booking_id)
        .where(or_((Wait.state == WaitState.WAITING) & late, (Wait.state == WaitState.OFFERED) & not_taken))
        .order_by(Wait.id)
    )
    return list(db.session.scalars(query))


def matching(wait: Wait, gpus: Sequence[Gpu]) -> list[Gpu]:
    """Those of the GPUs (with their host) that the wish would take."""
    if wait.gpu_ids:
        return [gpu for gpu in gpus if gpu.id in wait.gpu_ids]
    return [gpu for gpu in gpus if wait.model in {"", gpu.model} and wait.host in {"", gpu.host.name}]


def place(wait: Wait, everyone: Sequence[Wait], gpus: Sequence[Gpu]) -> int:
    """The how manieth it is of those who want some of the same GPUs at some of the same time; from 1."""
    own, window = {gpu.id for gpu in matching(wait, gpus)}, Window(wait.starts_at, wait.ends_at)
    return 1 + sum(
        other.id < wait.id
        and other.state == WaitState.WAITING
        and window.overlaps(Window(other.starts_at, other.ends_at))
        and not own.isdisjoint(gpu.id for gpu in matching(other, gpus))
        for other in everyone
    )


def _fresh(query: Select[Wait]) -> Select[Wait]:
    return query.execution_options(populate_existing=True)
