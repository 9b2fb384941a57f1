"""Bookings that give way to maintenance: what becomes of each, and doing it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import select

from app import clock
from app.extensions import db
from app.language import gettext as _
from app.models import Allocation, Booking, Gpu, Instance, InstanceStatus, User
from app.services import audit, changes, openings, quota
from app.services.openings import Busy
from app.services.rules import tariff
from app.services.windows import Window

WORTH = timedelta(minutes=1)  # a rest that is shorter is given back


class Fate(StrEnum):
    """What becomes of a booking that is in the way."""

    MOVED = "moved"
    ELSEWHERE = "elsewhere"
    CONTINUED = "continued"
    SHORTENED = "shortened"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class Change:
    """One booking's fate: `gpus` that it gets, in the order of its allocations, or that its rest gets; or when it
    ends."""

    booking: Booking
    fate: Fate
    gpus: tuple[Gpu, ...] = ()
    ends_at: datetime | None = None

    @property
    def given(self) -> Window:
        """When it has `gpus`."""
        return Window(self.ends_at or self.booking.starts_at, self.booking.ends_at)


def fate(booking: Booking, blocked: set[int], window: Window, given: Busy) -> Change:
    """What becomes of one. `given`: what others get that give way too. Changes nothing."""
    own = [allocation.gpu for allocation in booking.allocations]
    if booking.starts_at <= clock.now():
        end = max(window.starts_at, clock.now().replace(microsecond=0))
        rest = Window(end, booking.ends_at)
        gpus: tuple[Gpu, ...] = ()
        if rest.ends_at - rest.starts_at >= WORTH and _is_paid(booking, rest):
            gpus = _here(booking, own, blocked, given, rest) or _elsewhere(booking, own, blocked, given, rest)
        return Change(booking, Fate.CONTINUED if gpus else Fate.SHORTENED, gpus, end)
    whole = Window(booking.starts_at, booking.ends_at)
    if here := _here(booking, own, blocked, given, whole):
        return Change(booking, Fate.MOVED, here)
    if there := _elsewhere(booking, own, blocked, given, whole):
        return Change(booking, Fate.ELSEWHERE, there)
    if booking.starts_at < window.starts_at:
        return Change(booking, Fate.SHORTENED, ends_at=window.starts_at)
    return Change(booking, Fate.CANCELLED)


def _is_paid(booking: Booking, rest: Window) -> bool:
    """Whether what comes back for the rest pays for it as a booking of its own: not where the account owes hours, and
    two halves may cost a GPU-second more than the whole."""
    price = tariff.of(booking)
    back = price.between(booking.starts_at, rest.starts_at, rest.ends_at)
    return quota.free(booking.account_id) + back >= price.cost(rest)


def _here(booking: Booking, own: list[Gpu], blocked: set[int], given: Busy, time: Window) -> tuple[Gpu, ...]:
    """The booking's GPUs with those in the way replaced by equal ones of the same host; () if there are not enough."""
    rest = [gpu for gpu in openings.usable_gpus(host=booking.host.name) if gpu.id not in blocked | {g.id for g in own}]
    free = _free(rest, time, given)
    result = []
    for gpu in own:
        chosen = gpu if gpu.id not in blocked else next((other for other in free if other.model == gpu.model), None)
        if chosen is None:
            return ()
        free = [other for other in free if other.id != chosen.id]
        result.append(chosen)
    return tuple(result)


def _elsewhere(booking: Booking, own: list[Gpu], blocked: set[int], given: Busy, time: Window) -> tuple[Gpu, ...]:
    """As many equal GPUs of another host where the person has a machine; () if there are none. What runs goes on only
    where the machine runs: nobody may be there to start it."""
    if len({gpu.model for gpu in own}) > 1:
        return ()
    hosts = _hosts(booking, runs=time.starts_at > booking.starts_at)
    rest = [gpu for gpu in openings.usable_gpus(own[0].model) if gpu.host_id in hosts and gpu.id not in blocked]
    return tuple(openings.choose(_free(rest, time, given), {}, time, len(own), frozenset()))


def _hosts(booking: Booking, *, runs: bool) -> set[int]:
    """The other hosts where its owner's oldest machine, which gets what is booked there, could take GPUs; with `runs`,
    where that was last seen to run."""
    query = (
        select(Instance.host_id, Instance.status)
        .where(Instance.owner_id == booking.user_id, Instance.takes_gpus, Instance.host_id != booking.host_id)
        .order_by(Instance.id.desc())
    )
    oldest = {host_id: status for host_id, status in db.session.execute(query)}  # noqa: C416 - not pairs to mypy
    return {host_id for host_id, status in oldest.items() if not runs or status == InstanceStatus.RUNNING}


def _free(gpus: list[Gpu], time: Window, given: Busy) -> list[Gpu]:
    taken = openings.busy(gpus, time.starts_at, time.ends_at)
    return [gpu for gpu in openings.free_gpus(gpus, taken, time) if not _given(gpu, time, given)]


def _given(gpu: Gpu, time: Window, given: Busy) -> bool:
    return any(span.overlaps(time) for span in given.get(gpu.id, ()))


def do(actor: User, change: Change, reason: str) -> None:
    """Do it; only where the booking, its account and the GPUs are locked."""
    booking, why = change.booking, _("Maintenance: %(reason)s", reason=reason) if reason else _("Maintenance")
    if change.fate == Fate.CANCELLED:
        changes.withdraw(actor.username, booking, reason=why)
    elif change.fate == Fate.CONTINUED and _is_paid(booking, change.given):  # those before took their parts
        _continue(actor, change, why)
    elif change.ends_at is not None:
        changes.cut(actor, booking, change.ends_at, reason=why)
    else:
        before = [allocation.gpu_id for allocation in booking.allocations]
        for allocation, gpu in zip(booking.allocations, change.gpus, strict=True):
            allocation.gpu, allocation.instead_of_id = gpu, None
        if change.fate == Fate.ELSEWHERE:
            booking.host, booking.instance_id = change.gpus[0].host, None
        db.session.flush()
        now = [gpu.id for gpu in change.gpus]
        audit.record(
            actor.username, "booking.gpu_replaced", f"booking:{booking.id}", gpus=now, instead_of=before, reason=why
        )


def _continue(actor: User, change: Change, why: str) -> None:
    """End it, and book its rest as one of its own by the same price: nobody decides on new time, so no rule is asked,
    and what comes back pays for it. Its owner hears of both in one."""
    booking, end = change.booking, change.booking.ends_at
    host = change.gpus[0].host
    rest = Booking(
        user_id=booking.user_id,
        account_id=booking.account_id,
        host_id=host.id,
        instance_id=booking.instance_id if host.id == booking.host_id else None,
        series_id=booking.series_id,
        rest_of_id=booking.id,
        starts_at=change.given.starts_at,
        ends_at=end,
        booked_until=end,
        note=booking.note,
        tariff=tariff.of(booking).as_json(),
    )
    db.session.add(rest)
    db.session.flush()
    told = {
        "booking": rest.id,
        "host": host.name,
        "gpus": [gpu.minor for gpu in change.gpus],
        "ends_at": end.isoformat(),
    }
    changes.cut(actor, booking, change.given.starts_at, reason=why, rest=told)
    rest.starts_at = booking.ends_at  # one that began a moment ago ends a moment later
    window = {"starts_at": rest.starts_at, "ends_at": end}
    db.session.add_all(Allocation(booking_id=rest.id, gpu_id=gpu.id, **window) for gpu in change.gpus)
    db.session.flush()
    quota.hold(rest, tariff.of(rest).cost(Window(rest.starts_at, end)), key=f"hold:{rest.id}", actor=actor.username)
    audit.record(
        actor.username, "booking.created", f"booking:{rest.id}", gpus=[gpu.id for gpu in change.gpus],
        starts_at=rest.starts_at.isoformat(), ends_at=end.isoformat(), rest_of=booking.id, reason=why,
    )  # fmt: skip
