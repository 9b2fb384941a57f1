"""What monitors read, of the database: gauges in Prometheus' words. Names of people only where they are asked for.

Nothing here is counted in this process, so it does not matter which of the portal's processes is asked.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from sqlalchemy import func, select
from sqlalchemy.orm import joinedload

from app import clock
from app.extensions import db
from app.models import Account, Allocation, Booking, Gpu, Host, Notice, Operation, OperationState, Wait, WaitState
from app.services import activity, alarms, enforcement, live_seen, outbox, surveys
from app.services.checkup import pools
from app.services.live_seen import THROTTLES, Hold, Seen, throttled_by
from app.services.samples import Now

MIB = 1 << 20
# By what services.samples.Now calls it: the name here, what it is, and what makes base units of it.
MEASURED = {
    "utilisation": ("utilisation_ratio", "Share of the time in which kernels ran, 0 to 1", 0.01),
    "memory_used": ("memory_used_bytes", "Memory in use", MIB),
    "memory_total": ("memory_total_bytes", "Memory that there is", MIB),
    "power": ("power_watts", "Power drawn", 1),
    "power_limit": ("power_limit_watts", "Power that it may draw", 1),
    "temperature": ("temperature_celsius", "Temperature", 1),
    "clock_sm": ("clock_sm_hertz", "Clock of its processors", 1_000_000),
    "ecc_errors": ("ecc_errors", "Errors of its memory since the driver was loaded", 1),
}

_SEEN = "berth_gpu_seen_seconds", "Since it was last read"
_UNREAD = "berth_gpu_unreadable", "Whether it was looked at and did not answer: off the bus, say"
Reading = tuple[str, str, Now]
"""A GPU's number and model, and what it was last seen at."""


class _Once(Collector):
    def __init__(self, found: Iterable[Metric]) -> None:
        self._found = found

    def collect(self) -> Iterable[Metric]:
        return self._found


def text(found: Iterable[Metric]) -> str:
    """In Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Once(list(found)))
    return generate_latest(registry).decode()


def names_for(token: str, authorization: str) -> bool | None:
    """Whether somebody who sent this header is told names: with the token that is set, and only then. None: theirs is
    wrong, so that a monitor with an old one is not served half of what it wants."""
    kind, _blank, sent = authorization.partition(" ")
    if not authorization:
        return False
    good = bool(token) and kind.lower() == "bearer" and hmac.compare_digest(sent.strip().encode(), token.encode())
    return True if good else None


def families(*, names: bool, host: Host | None = None) -> Iterator[Metric]:
    """All gauges, of one host or of all. `names`: also who has each GPU, and what accounts have left."""
    now = clock.now()
    gone = set(db.session.scalars(select(Gpu.id).where(Gpu.gone_at.is_not(None))))  # another may have their number now
    found = [gpu for gpu in live_seen.gpus() if gpu.id not in gone and (host is None or gpu.host_id == host.id)]
    yield from _gpus(found, now, names=names)
    query = select(Host).order_by(Host.name)
    hosts = db.session.scalars(query if host is None else query.where(Host.id == host.id)).all()
    needed = alarms.needed_hosts()  # others may be switched off, and an alert would have no end
    yield from _hosts([one for one in hosts if one.id in needed], found, now)
    yield _pools({one.id: one.name for one in hosts if one.id in needed or live_seen.is_fresh(one.seen_at, now)})
    yield from _work({one.id: one.name for one in hosts}, now)
    if host is None:
        yield from _lab(now, names=names)


def measured(host: str, readings: Iterable[Reading]) -> Iterator[Metric]:
    """What its agent read of the host's GPUs, while there is no database to say the rest."""
    now, labels = clock.now(), ["host", "gpu", "model"]
    many = _measured(labels)
    seen, unread = _family(*_SEEN, labels), _family(*_UNREAD, labels)
    for gpu, model, one in readings:
        values = [host, gpu, model]
        seen.add_metric(values, (now - one.seen_at).total_seconds())
        if live_seen.is_fresh(one.seen_at, now):
            unread.add_metric(values, bool(one.trouble))
            for key, share in _numbers({} if one.trouble else one.values):
                many[key].add_metric(values, share)
    yield from (*many.values(), seen, unread)


def _measured(labels: list[str]) -> dict[str, GaugeMetricFamily]:
    return {key: _family(f"berth_gpu_{name}", text, labels) for key, (name, text, _by) in MEASURED.items()}


def _gpus(found: list[Seen], now: datetime, *, names: bool) -> Iterator[Metric]:
    holds = {gpu.id: gpu.held(now) for gpu in found}
    attached = {gpu_id: hold.attached_at for gpu_id, hold in holds.items() if hold and hold.attached_at}
    idle = activity.idle_since(attached, live_seen.still(found), now)
    needed = alarms.needed_gpus()
    labels = ["host", "gpu", "model", *(["user", "booking"] if names else [])]
    many = _measured(labels)
    booked = _family("berth_gpu_booked", "Whether somebody has it booked now", labels)
    plugged = _family("berth_gpu_attached", "Whether it was seen in the machine that has it booked", labels)
    seen, unread = _family(*_SEEN, labels), _family(*_UNREAD, labels)
    programs = _family("berth_gpu_processes", "Programs on it", labels)
    strays = _family("berth_gpu_unbooked_processes", "Programs that use it without a booking", labels)
    slowed = _family("berth_gpu_throttled", "Whether this keeps it from its clocks", [*labels, "reason"])
    still = _family("berth_gpu_idle_seconds", "Measured time since its last minute with work, while attached", labels)
    for gpu in found:
        held = holds[gpu.id]
        values = [gpu.host, str(gpu.minor), gpu.model, *(_who(held) if names else [])]
        booked.add_metric(values, held is not None)
        plugged.add_metric(values, gpu.id in attached)
        if gpu.id in idle:
            still.add_metric(values, idle[gpu.id].total_seconds())
        if gpu.seen_at is None:
            continue
        if gpu.id in needed:  # others may stay unread, and an alert would have no end
            seen.add_metric(values, (now - gpu.seen_at).total_seconds())
        if not gpu.is_fresh(now):  # no line says "not known"; an old one would say "as ever"
            continue
        unread.add_metric(values, bool(gpu.trouble))
        if (throttled := throttled_by(gpu.values or {})) is not None:
            for reason in THROTTLES:
                slowed.add_metric([*values, reason], reason in throttled)
        programs.add_metric(values, gpu.programs or 0)
        strays.add_metric(values, gpu.strays or 0)
        for key, share in _numbers({} if gpu.trouble else gpu.values or {}):
            many[key].add_metric(values, share)
    yield from (*many.values(), booked, plugged, seen, unread, slowed, programs, strays, still)


def _numbers(values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for key in MEASURED:
        if isinstance(values.get(key), int | float):
            yield key, round(values[key] * MEASURED[key][2], 6)


def _who(held: Hold | None) -> list[str]:
    return [held.username, str(held.booking_id)] if held is not None else ["", ""]


def _hosts(hosts: Iterable[Host], found: list[Seen], now: datetime) -> Iterator[Metric]:
    states: dict[tuple[str, str], int] = {}
    for gpu in found:
        states[gpu.host, gpu.state] = states.get((gpu.host, gpu.state), 0) + 1
    family = _family("berth_gpus", "GPUs by host and state", ["host", "state"])
    for (name, state), count in sorted(states.items()):
        family.add_metric([name, state], count)
    yield family
    help_text = "Whether the last pass could not look at it, or not for who holds its GPUs"
    trouble = _family("berth_host_trouble", help_text, ["host"])
    for host in hosts:
        trouble.add_metric([host.name], bool(host.trouble))
    yield trouble
    seen = [(host.name, now - (host.seen_at or host.created_at)) for host in hosts]
    took = [(host.name, timedelta(milliseconds=host.pass_ms)) for host in hosts if host.pass_ms is not None]
    passed = [(host.name, now - host.pass_at) for host in hosts if host.pass_at is not None]
    yield _seconds("berth_agent_seen_seconds", "Since a host's agent gave a sign of life, or the host was added", seen)
    yield _seconds("berth_pass_age_seconds", "Since the last pass that could look at the host", passed)
    yield _seconds("berth_pass_duration_seconds", "How long that pass took", took)


def _pools(hosts: Mapping[int, str]) -> Metric:
    family = _family("berth_storage_pool_used_ratio", "Share of a storage pool in use, 0 to 1", ["host", "pool"])
    for host_id, found in surveys.pools().items():
        for pool in found:
            if host_id in hosts and (part := pools.used(pool)) is not None:
                family.add_metric([hosts[host_id], pool.name], round(part, 4))
    return family


def _work(hosts: Mapping[int, str], now: datetime) -> Iterator[Metric]:
    query = select(Allocation).where(*enforcement.not_gone(now)).options(joinedload(Allocation.gpu))
    over = db.session.scalars(query).all()
    due, rows = enforcement.due(over), dict[int, list[datetime]]()
    for one in over:
        rows.setdefault(one.gpu.host_id, []).append(due[one.id])
    overdue = _family("berth_gpus_overdue", "GPUs whose booking is over and that are not seen to be gone", ["host"])
    for host_id, name in hosts.items():
        overdue.add_metric([name], len(rows.get(host_id, ())))
    yield overdue
    since = [(name, max(timedelta(0), now - min(rows[host_id]))) for host_id, name in hosts.items() if host_id in rows]
    yield _seconds("berth_gpus_overdue_seconds", "For how long the first of them should have been gone", since)
    open_ones = (
        select(Operation.host_id, Operation.state, func.count())
        .where(Operation.state.in_((OperationState.QUEUED, OperationState.RUNNING)))
        .group_by(Operation.host_id, Operation.state)
    )
    count = {(host_id, state): number for host_id, state, number in db.session.execute(open_ones)}
    operations = _family("berth_operations", "Long work on machines and templates, open", ["host", "state"])
    for host_id, name in hosts.items():
        for state in (OperationState.QUEUED, OperationState.RUNNING):
            operations.add_metric([name, state.value], count.get((host_id, state), 0))
    yield operations


def _lab(now: datetime, *, names: bool) -> Iterator[Metric]:
    # By what is not settled yet: those have an index of their own, however many bookings are past.
    running = select(func.count()).where(
        Booking.settled_at.is_(None), Booking.cancelled_at.is_(None), Booking.starts_at <= now, Booking.ends_at > now
    )
    waiting = select(func.count()).where(Notice.sent_at.is_(None), Notice.given_up_at.is_(None), Notice.due_at <= now)
    in_line = select(func.count()).where(Wait.state == WaitState.WAITING)
    for name, meaning, query in (
        ("berth_bookings_running", "Bookings that run now", running),
        ("berth_waits", "Wishes on the waiting list", in_line),
        ("berth_notices_waiting", "Notices that are due and not sent", waiting),
    ):
        yield GaugeMetricFamily(name, meaning, db.session.scalar(query) or 0)
    given_up = outbox.count_given_up(since=now - timedelta(days=1))
    yield GaugeMetricFamily("berth_notices_given_up", "Notices given up in the last day", given_up)
    if names:
        left = _family("berth_quota_free_seconds", "GPU-seconds that an account may still hold", ["account"])
        for name, balance in db.session.execute(select(Account.name, Account.balance).order_by(Account.name)):
            left.add_metric([name], balance)
        yield left


def _family(name: str, meaning: str, labels: list[str]) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, meaning, labels=labels)


def _seconds(name: str, meaning: str, found: Iterable[tuple[str, timedelta]]) -> GaugeMetricFamily:
    family = _family(name, meaning, ["host"])
    for host, span in found:
        family.add_metric([host], round(span.total_seconds(), 3))
    return family
