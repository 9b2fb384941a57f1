"""What the agents measured arrives here: each batch is added once, however often it is sent.

Amounts are sums: parts of a minute that were measured by different runs of an agent add up to that minute.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import String, bindparam, column, func, or_, select
from sqlalchemy.dialects.postgresql import JSONB, Insert, insert

from app import clock
from app.extensions import db
from app.models import Booking, Consumer, Gpu, GpuNow, Host, UsageBatch
from app.services import activity, folding, live_seen


@dataclass(frozen=True)
class Part:
    """What a GPU did in one minute (UTC, whole) or a part of it, for one consumer: milliseconds, joules, MiB, °C.

    `booking` 0: none; `instance` "": the host itself, or nobody. The instance need not be one of Berth's.
    """

    pci_address: str
    minute: datetime
    booking: int = 0
    instance: str = ""
    sampled_ms: int = 0
    busy_ms: int = 0
    energy_j: int = 0
    memory_mib: int = 0
    temperature: int = 0


@dataclass(frozen=True)
class Now:
    """What a GPU is at. A value that NVML does not have is not in `values`: utilisation, memory_utilisation (%),
    memory_used, memory_total (MiB), power, power_limit (W), temperature (°C), clock_sm, clock_memory (MHz),
    ecc_errors (since the driver was loaded), throttle (some of live_seen.THROTTLES, between commas), mig (into how many
    instances the GPU is split up: it has no utilisation then, and counts as busy in as many as have a process:
    mig_in_use). `processes`: {pid, instance, booking, memory (MiB or None), utilisation (% or None), name,
    computes (not only with graphics)}, the host's PIDs; instance "" is the host's own."""

    pci_address: str
    seen_at: datetime
    values: Mapping[str, Any] = field(default_factory=dict)
    processes: Sequence[Mapping[str, Any]] = ()
    trouble: str = ""


def deliver(host_id: int, name: str, parts: Iterable[Part]) -> int:
    """Add a batch, unless it is there already (under the agent's `name` for it). How many of its parts are of a GPU
    that is not known (any more), and are left out."""
    statement = insert(UsageBatch).values(host_id=host_id, name=name, delivered_at=clock.now())
    if db.session.scalar(statement.on_conflict_do_nothing().returning(UsageBatch.name)) is None:
        return 0
    gpus = _gpus(host_id)
    known = [part for part in parts if part.pci_address in gpus]
    unknown = len([part for part in parts if part.pci_address not in gpus])
    consumers = _consumers(host_id, known)
    folding.add(
        host_id,
        (
            {"gpu_id": gpus[part.pci_address], "consumer_id": consumers[part.booking, part.instance]} | asdict(part)
            for part in known
        ),
    )
    activity.note({gpus[part.pci_address] for part in known}, clock.now())
    return unknown


def show(host_name: str, readings: Iterable[Now]) -> None:
    """Keep what GPUs are at; an older reading never takes the place of a newer one, unless that is of a time to come:
    its host's clock was ahead then. One statement, made once: an agent says it every few seconds."""
    said = [asdict(one) | {"seen_at": one.seen_at.isoformat()} for one in readings]
    db.session.execute(_SHOW, {"host": host_name, "said": said, "ahead": clock.now() + live_seen.OLD})


def _showing() -> Insert:
    table = GpuNow.metadata.tables[GpuNow.__tablename__]
    kept = [table.c[name] for name in ("seen_at", "values", "processes", "trouble")]
    columns = [column("pci_address", String), *(column(one.name, one.type) for one in kept)]
    said = func.jsonb_to_recordset(bindparam("said", type_=JSONB)).table_valued(*columns, name="said")
    typed = said.render_derived(with_types=True)
    query = select(Gpu.id, *(typed.c[one.name] for one in kept)).join(Gpu, Gpu.pci_address == typed.c.pci_address)
    of_host = query.join(Host, Host.id == Gpu.host_id).where(Host.name == bindparam("host")).order_by(Gpu.id)
    statement = insert(table).from_select(["gpu_id", *(one.name for one in kept)], of_host)
    older = or_(table.c.seen_at < statement.excluded.seen_at, table.c.seen_at > bindparam("ahead"))
    changed = {one.name: statement.excluded[one.name] for one in kept}
    return statement.on_conflict_do_update(index_elements=["gpu_id"], set_=changed, where=older)


_SHOW = _showing()


def _gpus(host_id: int) -> dict[str, int]:
    return {address: number for number, address in db.session.execute(
        select(Gpu.id, Gpu.pci_address).where(Gpu.host_id == host_id)
    )}  # fmt: skip


def _consumers(host_id: int, parts: Iterable[Part]) -> dict[tuple[int, str], int]:
    """Ids of the consumers of these parts, made where they are new; a booking that is not of this host is none."""
    wanted = {(part.booking, part.instance) for part in parts}
    numbers = {booking for booking, _ in wanted if booking}
    query = select(Booking.id).where(Booking.id.in_(numbers), Booking.host_id == host_id)
    bookings = set(db.session.scalars(query)) if numbers else set()
    meant = {key: (key[0] if key[0] in bookings and key[1] else None, key[1]) for key in wanted}
    for booking_id, instance in sorted(set(meant.values()), key=lambda one: (one[0] or 0, one[1])):
        values = {"host_id": host_id, "booking_id": booking_id, "instance": instance}
        db.session.execute(insert(Consumer).values(values).on_conflict_do_nothing())
    names = {instance for _, instance in wanted}
    query_of_all = select(Consumer.booking_id, Consumer.instance, Consumer.id).where(
        Consumer.host_id == host_id, Consumer.instance.in_(names)
    )
    ids = {(booking, instance): number for booking, instance, number in db.session.execute(query_of_all)}
    return {key: ids[what] for key, what in meant.items()}
