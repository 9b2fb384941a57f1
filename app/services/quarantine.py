"""GPUs that could not be proven free: given to nobody until someone looks, and another one given in their place.

All of this locks the GPUs of the host, in order of id, before anything else of its own: as for a booking (see
services.bookings), they come after an account's row and before a booking's and an allocation's. So call it before
any allocation is locked or changed in the same transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.exc import IntegrityError

from app import clock
from app.extensions import db
from app.models import Allocation, Booking, Gpu, GpuState, Host
from app.services import audit, openings
from app.services.windows import Window


def quarantine(actor: str, gpu: Gpu, reason: str, *, booking: int | None = None) -> bool:
    """Give the GPU to nobody from now on, and note why, and after whose booking. Whether it is news: the first reason
    stays.

    One that an admin took out of service nobody gets anyway, and it comes back by their word only."""
    target = _locked(gpu)
    if target.state != GpuState.IN_SERVICE:
        return False
    target.state, target.quarantined_at, target.quarantine_reason = GpuState.QUARANTINE, clock.now(), reason[:500]
    after = {} if booking is None else {"booking": booking}
    _record(actor, "gpu.quarantined", target, reason=reason[:500], **after)
    return True


def release_quarantine(actor: str, gpu: Gpu, how: str) -> bool:
    """Let the GPU be booked again. `how` somebody made sure of it, for the audit. Whether it was held back."""
    target = _locked(gpu)
    if target.state != GpuState.QUARANTINE:
        return False
    since = target.quarantined_at
    target.state, target.quarantined_at, target.quarantine_reason = GpuState.IN_SERVICE, None, ""
    _record(actor, "gpu.released", target, how=how[:500], since=since.isoformat() if since else "")
    return True


def replacement(allocation: Allocation, now: datetime) -> Gpu | None:
    """Give the booking another free GPU of the model on its host for what is left of it. None when there is none.

    Only for a GPU that was never seen in the machine: one that is in use is not swapped under anybody's work.
    """
    old = db.session.get_one(Gpu, allocation.gpu_id)
    others = [gpu for gpu in _lock_all(old.host_id) if gpu.id != old.id]
    db.session.execute(select(Booking.id).where(Booking.id == allocation.booking_id).with_for_update())
    db.session.refresh(allocation, with_for_update=True)  # it may have ended, or been moved, in between
    over = allocation.released_at is not None or allocation.ends_at <= now
    if over or allocation.attached_at is not None or allocation.gpu_id != old.id:
        return None
    rest = Window(max(allocation.starts_at, now.replace(microsecond=0)), allocation.ends_at)
    for gpu in _candidates(others, old.model, Window(allocation.starts_at, allocation.ends_at), rest):
        if _move(allocation, gpu, rest):
            return gpu
    return None


def _locked(gpu: Gpu) -> Gpu:
    """The GPU as it is now, its row locked. With its whole host: more of them may be needed in the same transaction."""
    return next(found for found in _lock_all(gpu.host_id) if found.id == gpu.id)


def _lock_all(host_id: int) -> Sequence[Gpu]:
    query = select(Gpu).where(Gpu.host_id == host_id).order_by(Gpu.id).with_for_update(key_share=True)
    return db.session.scalars(query.execution_options(populate_existing=True)).all()


def _candidates(others: Sequence[Gpu], model: str, whole: Window, rest: Window) -> list[Gpu]:
    """Those that are free for the rest, best first: not still being taken from their last user, free all the time."""
    fitting = [gpu for gpu in others if gpu.model == model and gpu.state == GpuState.IN_SERVICE]
    taken = openings.busy(fitting, whole.starts_at, whole.ends_at)
    whole_time = {gpu.id for gpu in openings.free_gpus(fitting, taken, whole)}
    leaving = _leaving([gpu.id for gpu in fitting], rest.starts_at)
    free = openings.free_gpus(fitting, taken, rest)
    return sorted(free, key=lambda gpu: (gpu.id in leaving, gpu.id not in whole_time, gpu.minor))


def _leaving(gpu_ids: Sequence[int], now: datetime) -> set[int]:
    """Those that were not yet seen to be gone from the machine of a booking that is over."""
    query = select(Allocation.gpu_id).where(
        Allocation.gpu_id.in_(gpu_ids),
        Allocation.attached_at.is_not(None),
        Allocation.detached_at.is_(None),
        or_(Allocation.ends_at <= now, Allocation.released_at.is_not(None)),
    )
    return set(db.session.scalars(query))


def _move(allocation: Allocation, gpu: Gpu, rest: Window) -> bool:
    """Point the allocation at the other GPU, only from now on if somebody had that before. Whether it could be done."""
    old_id, booked_id = allocation.gpu_id, allocation.instead_of_id or allocation.gpu_id
    earlier_user = openings.any_overlap([gpu.id], Window(allocation.starts_at, allocation.ends_at))
    try:
        with db.session.begin_nested():
            allocation.gpu, allocation.instead_of_id = gpu, None if gpu.id == booked_id else booked_id
            allocation.trouble, allocation.trouble_text, allocation.trouble_at = "", "", None
            if earlier_user:
                allocation.booked_from = allocation.booked_from or allocation.starts_at
                allocation.starts_at = rest.starts_at
            db.session.flush()
    except IntegrityError:
        return False
    audit.record(
        audit.SYSTEM, "booking.gpu_replaced", f"booking:{allocation.booking_id}", gpu=gpu.id, instead_of=old_id
    )
    return True


def _record(actor: str, action: str, gpu: Gpu, **details: Any) -> None:
    db.session.flush()
    name: str | None = db.session.scalar(select(Host.name).where(Host.id == gpu.host_id))
    audit.record(actor, action, f"gpu:{gpu.id}", host=name, pci_address=gpu.pci_address, **details)
