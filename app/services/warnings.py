"""The warnings before a running booking's end: which are due, what holds its GPUs, and that each is given once.

What a machine is told is in services.warning_words.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import joinedload, selectinload

from app import clock
from app.drivers.base import GpuInfo, HostSeen, Number
from app.drivers.kernel import Scan
from app.extensions import db
from app.models import Allocation, Booking, Host
from app.services import endings
from app.services.endings import Grace

MINUTES = (15, 5, 1)  # before the end
MOST = 20  # holders that are kept of one GPU
NAME_LENGTH = 40

Held = dict[int, list[dict[str, Any]]]
"""By allocation id, what holds its GPU: pid and name, and `also`, the other bookings whose GPUs it holds."""


@dataclass(frozen=True)
class Claim:
    """A GPU that somebody has now."""

    allocation_id: int
    booking_id: int
    gpu: GpuInfo
    ends_at: datetime


@dataclass(frozen=True)
class Due:
    """A warning that is due: of which booking, for how many minutes before its end, and what it says.

    `claims`: its GPUs that go. `locale`: its owner's language, "" if they chose none."""

    booking_id: int
    minutes: int
    ends_at: datetime
    host: str
    claims: tuple[Claim, ...]
    grace: Grace
    locale: str = ""
    timezone: str = ""


def due(host: Host) -> list[Due]:
    """The warnings that are due on the host now. Of several for one booking, the last."""
    now = clock.now()
    query = (
        select(Booking)
        .where(
            Booking.host_id == host.id,
            Booking.settled_at.is_(None),
            Booking.starts_at <= now,
            Booking.ends_at > now,
            Booking.ends_at <= now + timedelta(minutes=max(MINUTES)),
        )
        .options(selectinload(Booking.allocations).joinedload(Allocation.gpu), joinedload(Booking.user))
        .order_by(Booking.ends_at, Booking.id)
        .execution_options(populate_existing=True)
    )
    late = [(booking, minutes) for booking in db.session.scalars(query) if (minutes := _late(booking, now))]
    ends = endings.ends_of(booking for booking, _ in late) if late else {}
    return [
        Due(
            booking.id,
            minutes,
            booking.ends_at,
            host.name,
            tuple(_claim(a) for a in booking.allocations if a.id in ends[booking.id].goes),
            ends[booking.id].grace,
            booking.user.locale,
            booking.user.timezone,
        )
        for booking, minutes in late
        if ends[booking.id].goes
    ]


def running(host: Host) -> list[Claim]:
    """Everything that somebody has on the host now."""
    now = clock.now()
    query = (
        select(Allocation)
        .join(Booking)
        .where(
            Booking.host_id == host.id,
            Allocation.released_at.is_(None),
            Allocation.starts_at <= now,
            Allocation.ends_at > now,
        )
        .options(joinedload(Allocation.gpu))
    )
    return [_claim(allocation) for allocation in db.session.scalars(query)]


def mark(warning: Due, held: Held | None) -> bool:
    """Note that the warning is given, and what holds the GPUs (None: it is not known). False: it is not due any more,
    since it was given already or the end has moved."""
    query = select(Allocation).where(Allocation.booking_id == warning.booking_id).order_by(Allocation.id)
    found = db.session.scalars(query.with_for_update().execution_options(populate_existing=True)).all()
    if any(a.ends_at != warning.ends_at or a.released_at or _given(a, warning.minutes) for a in found):
        return False
    for allocation in found:
        allocation.warned = warning.minutes
        if held is not None:
            allocation.holders = held.get(allocation.id, [])
    db.session.flush()
    return True


def given_by(now: datetime, ends_at: datetime) -> int | None:
    """The last warning whose moment is past, for a booking that was just given this end: nobody needs to be told what
    they have just decided."""
    return min((minutes for minutes in MINUTES if ends_at - timedelta(minutes=minutes) <= now), default=None)


def places(seen: HostSeen) -> dict[int, str]:
    """By booking id, the running instance that has its GPUs, as the GPUs' tags say."""
    return {
        device.tag.booking_id: instance.name
        for instance in seen.instances.values()
        if instance.status == "running"
        for device in instance.devices
        if device.ours and device.tag is not None
    }


def numbers_of(claims: Iterable[Claim], gpus: Iterable[GpuInfo]) -> dict[int, frozenset[Number]]:
    """By allocation id, the devices through which its GPU is used; `gpus` as the host lists them now."""
    listed = {gpu.pci_address: gpu.numbers for gpu in gpus}
    return {claim.allocation_id: claim.gpu.numbers | listed.get(claim.gpu.pci_address, set()) for claim in claims}


def held(
    warning: Due, instance: str, scan: Scan, claims: Iterable[Claim], numbers: Mapping[int, frozenset[Number]]
) -> Held:
    """What in the instance holds the booking's GPUs; first what also holds those of others."""
    names: dict[int, str] = {}
    holds: dict[int, set[Number]] = defaultdict(set)  # a process is listed once for each way it holds something
    for holder in scan.holders:
        if holder.instance == instance:
            names[holder.pid] = shown_name(holder.name)
            holds[holder.pid] |= holder.numbers
    others = [claim for claim in claims if claim.booking_id != warning.booking_id]
    also = {p: sorted({c.booking_id for c in others if holds[p] & numbers[c.allocation_id]}) for p in names}
    order = sorted(names, key=lambda pid: (not also[pid], pid))
    return {
        number: [{"pid": p, "name": names[p], "also": also[p]} for p in order if holds[p] & numbers[number]][:MOST]
        for number in (claim.allocation_id for claim in warning.claims)
    }


def shown_name(name: str) -> str:
    """What a process calls itself, fit to be shown."""
    return "".join(character for character in name if character.isprintable())[:NAME_LENGTH].strip() or "?"


def _late(booking: Booking, now: datetime) -> int:
    """The last warning whose moment is past and that was not given; 0 for none. None lies before the start."""
    minutes = given_by(now, booking.ends_at)
    if minutes is None or booking.ends_at - timedelta(minutes=minutes) < booking.starts_at:
        return 0
    return 0 if all(_given(allocation, minutes) for allocation in booking.allocations) else minutes


def _given(allocation: Allocation, minutes: int) -> bool:
    return allocation.warned is not None and allocation.warned <= minutes


def _claim(allocation: Allocation) -> Claim:
    gpu = allocation.gpu
    info = GpuInfo(gpu.pci_address, gpu.model, gpu.minor, gpu.uuid)
    return Claim(allocation.id, allocation.booking_id, info, allocation.ends_at)
