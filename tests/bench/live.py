"""What the live page costs with 64 GPUs, a year of their minutes stored: time in the server, queries, bytes."""

from __future__ import annotations

from datetime import timedelta

import sqlalchemy as sa

from app import clock
from app.config import Settings
from app.extensions import db, transaction
from app.models import Consumer, GpuNow
from app.services import activity, inventory
from tests.bench.installation import HOSTS, core, furnish
from tests.bench.others import watch
from tests.bench.report import Figure, Report
from tests.bench.week import NOW, _pages, portal
from tests.factories import make_booking, make_instance, make_user

DAYS = 365
MOST_MS, MOST_QUERIES = 15, 6
EVERY = "all hosts open"
PAGES = {
    "as it opens": "/live",
    "one host open": "/live?open=lab03",
    EVERY: "/live?" + "&".join(f"open=lab{number:02}" for number in range(1, HOSTS + 1)),
}
VALUES = {"memory_used": 36_000, "memory_total": 49_140, "power": 250, "power_limit": 300, "temperature": 61}
HOW = (
    "/live for somebody who is signed in; 64 GPUs in eight hosts, all booked, by eight people, each with four "
    "programs, every fourth idle for three hours; {rows:,} minutes stored. The whole page with gzip, from the "
    "request's environment to the last byte, in one process, without the network; {rounds} rounds of {times} pages, "
    "one by one in turn"
)
# Work by the hour, with gaps; every fourth GPU has done nothing for three hours.
_MINUTES = """
INSERT INTO usage_minutes (gpu_id, minute, consumer_id, sampled_ms, busy_ms, energy_j, memory_mib, temperature)
SELECT :gpu, minute, :consumer, 60000,
       CASE WHEN :idle AND minute >= :now - interval '3 hours' THEN 0
       ELSE (extract(epoch FROM minute)::bigint / 60 * 7919)
       % 60000 END, 12000, 20000, 61
FROM generate_series(date_trunc('minute', :now) - :days * interval '1 day',
                     date_trunc('minute', :now) - interval '1 minute', interval '1 minute') AS minute
"""


def measure(settings: Settings, *, days: int = DAYS, times: int = 100, rounds: int = 3) -> Report:
    """One installation, each page in turn."""
    with clock.frozen(NOW):
        with core(settings):
            rows = _fill(days)
        with portal(settings) as one:
            others = watch()
            found = dict(zip(PAGES, _pages([(one, path) for path in PAGES.values()], times, rounds), strict=True))
    figures = [Figure("cores that other programs took", (others(),))]
    for name, page in found.items():
        figures += [
            Figure(f"{name}: p50", page.p(0.5), "ms", most=None if name == EVERY else MOST_MS),
            Figure(f"{name}: p99", page.p(0.99), "ms"),
            Figure(f"{name}: queries", (page.queries,), most=MOST_QUERIES),
            Figure(f"{name}: bytes", (page.raw,)),
            Figure(f"{name}: bytes, gzip", (page.packed,)),
        ]
    return Report("live", HOW.format(rows=rows, rounds=rounds, times=times), tuple(figures))


def _fill(days: int) -> int:
    """Everything booked and seen a moment ago, and its minutes; how many there are."""
    gpus = furnish()
    since = NOW - timedelta(hours=5)
    with transaction() as session:
        people = [make_user(f"person-{number}", hours=100_000) for number in range(HOSTS)]
        for number, gpu in enumerate(gpus):
            person = people[number // HOSTS]
            booking = make_booking(person, [gpu], since, NOW + timedelta(hours=7))
            if gpu.minor == 0:
                make_instance(person, inventory.host_of(gpu.host_id), f"machine-{gpu.host_id}")
            one = {"instance": f"machine-{gpu.host_id}", "booking": booking.id, "memory": 9000, "utilisation": 20}
            programs = [one | {"pid": 1000 + number, "name": "python"}] * 4
            share = 0 if gpu.minor % 4 == 0 else 80
            values = VALUES | {"utilisation": share}
            session.add(GpuNow(gpu_id=gpu.id, seen_at=NOW, values=values, processes=programs))
            consumer = Consumer(host_id=gpu.host_id, booking_id=booking.id, instance=f"machine-{gpu.host_id}")
            session.add(consumer)
            session.flush()
            wanted = {"gpu": gpu.id, "consumer": consumer.id, "idle": gpu.minor % 4 == 0, "now": NOW, "days": days}
            session.execute(sa.text(_MINUTES), wanted)
        session.execute(sa.text("UPDATE allocations SET attached_at = starts_at"))
        activity.note([gpu.id for gpu in gpus], NOW)  # as when they were delivered
    with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE")
    return len(gpus) * days * 24 * 60
