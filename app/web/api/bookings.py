"""/api/v1/bookings: made, read, changed, given back."""

from __future__ import annotations

from datetime import datetime, timedelta

from flask import url_for

from app import clock
from app.errors import InvalidInput, RuleRefused
from app.extensions import transaction
from app.language import gettext as _
from app.models import Allocation, Booking, Phase, User
from app.services import bookings, changes, edits
from app.services.windows import Window
from app.web.api.answers import AllocationOut, BookingOut
from app.web.api.auth import bearer
from app.web.api.blueprint import bp, slot
from app.web.api.schemas import (
    BIGGEST_ID,
    BookingsQuery,
    IdempotencyHeaders,
    NewBooking,
    NewEnd,
    NewNote,
    Nothing,
)
from app.web.api.spec import describe
from app.web.wakes import wake_if_due

ID = f"<int(min=1, max={BIGGEST_ID}):booking_id>"
MOST = 2000  # bookings in one answer


@bp.get("/bookings")
@describe(tag="bookings", answer=list[BookingOut])
def list_bookings(query: BookingsQuery) -> list[BookingOut]:
    """Everybody's bookings that share a moment with a span, in order of start; cancelled ones left out.

    Who has which GPUs is for everybody; a note is for its owner and for admins.
    """
    user = bearer().user
    now = clock.now()
    start = query.from_ or now
    end = query.to or start + timedelta(days=7)
    if end <= start:
        raise InvalidInput(_('"to" must be later than "from".'), field="to")
    found = bookings.between(start, end, user=user if query.mine else None, limit=MOST + 1)
    if len(found) > MOST:
        raise RuleRefused(
            _("More than %(most)s bookings lie in that span.", most=MOST), _("Ask for a shorter one."), rule="span"
        )
    return [shown(booking, user, now) for booking in found]


@bp.post("/bookings")
@describe(tag="bookings", scope="book", status=201, answer=BookingOut, errors=(400, 404, 409, 413, 415))
def create_booking(json: NewBooking, headers: IdempotencyHeaders) -> tuple[BookingOut, int, dict[str, str]]:
    """Book GPUs of one host.

    Times snap outwards to the lab's grid. With `Idempotency-Key`, sending the same request again books once.
    """
    user = bearer().user
    ask = json.ask(headers.key)
    with transaction():
        booking = bookings.create(user, ask, slot())
        answer = shown(booking, user, clock.now())
    wake_if_due(booking)
    return answer, 201, {"Location": url_for("api.show_booking", booking_id=booking.id)}


@bp.get(f"/bookings/{ID}")
@describe(tag="bookings", answer=BookingOut, errors=(404,))
def show_booking(booking_id: int) -> BookingOut:
    """One booking, one's own or, for an admin, anybody's."""
    user = bearer().user
    return shown(bookings.get(user, booking_id), user, clock.now())


@bp.patch(f"/bookings/{ID}")
@describe(tag="bookings", scope="book", answer=BookingOut, errors=(400, 404, 413, 415))
def note_booking(booking_id: int, json: NewNote) -> BookingOut:
    """Say what a booking that is upcoming or runs is for."""
    user = bearer().user
    with transaction():
        return shown(edits.describe(user, booking_id, json.note), user, clock.now())


@bp.delete(f"/bookings/{ID}")
@describe(tag="bookings", scope="book", answer=BookingOut, errors=(404, 409))
def delete_booking(booking_id: int) -> BookingOut:
    """Cancel a booking that has not started; end one that runs now, and give the rest of it back."""
    user = bearer().user
    with transaction():
        running = bookings.get(user, booking_id).phase(clock.now()) == Phase.RUNNING
        booking = (changes.end_now if running else changes.cancel)(user, booking_id)
        answer = shown(booking, user, clock.now())
    wake_if_due(booking)
    return answer


@bp.post(f"/bookings/{ID}/extend")
@describe(tag="bookings", scope="book", answer=BookingOut, errors=(400, 404, 409, 413, 415))
def extend_booking(booking_id: int, json: NewEnd) -> BookingOut:
    """Move the end of a booking that is upcoming or runs: later if nobody else is there, or earlier."""
    user = bearer().user
    with transaction():
        booking = changes.move_end(user, booking_id, json.ends_at, slot())
        answer = shown(booking, user, clock.now())
    wake_if_due(booking)
    return answer


@bp.post(f"/bookings/{ID}/release")
@describe(tag="bookings", scope="book", answer=BookingOut, errors=(400, 404, 409, 413, 415))
def release_booking(booking_id: int, json: Nothing) -> BookingOut:  # noqa: ARG001 - declared so that fields are refused
    """End a running booking now; its GPUs are taken away at once and the rest of its hours are given back."""
    user = bearer().user
    with transaction():
        booking = changes.end_now(user, booking_id)
        answer = shown(booking, user, clock.now())
    wake_if_due(booking)
    return answer


def shown(booking: Booking, viewer: User, now: datetime) -> BookingOut:
    """A booking as this person may see it; owner, host, allocations and their GPUs must be loaded."""
    mine = booking.user_id == viewer.id
    window = Window(booking.starts_at, booking.ends_at)
    return BookingOut(
        id=booking.id,
        owner=booking.user.display_name,
        mine=mine,
        host=booking.host.name,
        gpus=[allocation.gpu_id for allocation in booking.allocations],
        starts_at=booking.starts_at,
        ends_at=booking.ends_at,
        phase=booking.phase(now),
        note=booking.note if mine or viewer.is_admin else None,
        gpu_hours=round(len(booking.allocations) * window.seconds / 3600, 4),
        series=booking.series_id,
        allocations=[_allocation(allocation) for allocation in booking.allocations],
        created_at=booking.created_at,
        cancelled_at=booking.cancelled_at,
        released_at=booking.released_at,
    )


def _allocation(allocation: Allocation) -> AllocationOut:
    gpu = allocation.gpu
    return AllocationOut(
        gpu=gpu.id,
        model=gpu.model,
        pci_address=gpu.pci_address,
        minor=gpu.minor,
        attached_at=allocation.attached_at,
        detached_at=allocation.detached_at,
        trouble=allocation.trouble,
    )
