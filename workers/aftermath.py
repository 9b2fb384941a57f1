"""What a pass found out about GPUs that should be free, written down: ended, stopped, quarantined, released, replaced.

In a transaction of its own: it locks GPUs, and those come before allocations.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select

from app import clock
from app.drivers.kernel import Holder
from app.extensions import db
from app.models import Allocation, Booking, Gpu, GpuState, Host
from app.services import audit, quarantine
from workers.outcome import Ended, Outcome
from workers.verdicts import State
from workers.watch import Watch

MOST = 50  # processes that are written down one by one


def record(host: Host, watch: Watch, outcome: Outcome) -> None:
    """Write it down, and give those whose GPU is held back another one where there is one."""
    actor = f"agent:{host.name}"
    gpus = {gpu.pci_address: gpu for gpu in db.session.scalars(select(Gpu).where(Gpu.host_id == host.id))}
    for one in outcome.earlier:
        if one.pci in gpus:
            _record_ended(actor, host, gpus[one.pci], one)
    for pci, verdict in sorted(outcome.verdicts.items()):
        if pci not in gpus:
            continue
        ending = watch.endings.get(pci)
        _record_ended(actor, host, gpus[pci], Ended(pci, verdict.ended, ending))
        booking = ending.tag.booking_id if ending is not None else None
        if verdict.stopped:
            key = f"stopped:{host.id}:{verdict.stopped}:{clock.now():%Y%m%dT%H%M%S}"
            its = {"booking": booking} if ending is not None and ending.instance == verdict.stopped else {}
            audit.record(
                actor, "instance.force_stopped", f"instance:{verdict.stopped}", key=key, gpu=gpus[pci].id,
                host=host.name, why=verdict.text, **its,
            )  # fmt: skip
        if verdict.quarantine:
            quarantine.quarantine(actor, gpus[pci], verdict.text, booking=booking)
        elif verdict.state == State.FREE and pci in watch.want.quarantined:
            quarantine.release_quarantine(actor, gpus[pci], "a later look found nobody who holds it")
    _replace(host, clock.now())


def _record_ended(actor: str, host: Host, gpu: Gpu, ended: Ended) -> None:
    """Each process that was ended for the GPU, once. No blame: a descriptor may have been planted on its holder.

    Of thousands, some: with the last of these it says how many more there were."""
    ending = ended.ending
    listed, more = ended.holders[:MOST], len(ended.holders[MOST:])
    for holder in listed:
        rightly = ending is not None and holder.instance == ending.instance
        details = _details(host, gpu, holder) | ({"more": more} if more and holder is listed[-1] else {})
        if ending is not None:
            details |= {"booking": ending.tag.booking_id, "booked_by": ending.instance}
        audit.record(
            actor,
            "gpu.process_ended" if rightly else "gpu.intruder",
            f"gpu:{gpu.id}",
            key=f"ended:{host.id}:{holder.pid}:{holder.start}:{gpu.id}:{clock.now():%Y%m%d}",
            **details,
        )


def _details(host: Host, gpu: Gpu, holder: Holder) -> dict[str, object]:
    return {
        "host": host.name,
        "pci_address": gpu.pci_address,
        "instance": holder.instance,
        "process": holder.pid,
        "name": holder.name,
        "how": str(holder.how),
    }


def _replace(host: Host, now: datetime) -> None:
    query = (
        select(Allocation)
        .join(Booking)
        .join(Gpu, Gpu.id == Allocation.gpu_id)
        .where(
            Booking.host_id == host.id,
            Gpu.state == GpuState.QUARANTINE,
            Allocation.attached_at.is_(None),
            Allocation.released_at.is_(None),
            Allocation.starts_at <= now,
            Allocation.ends_at > now,
        )
        .order_by(Allocation.id)
    )
    for allocation in db.session.scalars(query).all():
        quarantine.replacement(allocation, now)
