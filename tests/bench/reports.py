"""What reports cost over a year of minutes of 64 GPUs, and what those minutes weigh."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from app import clock
from app.config import Settings
from app.extensions import db, transaction
from app.models import Consumer, Gpu, Host
from app.services import samples
from app.services.samples import Part
from tests.bench import happened, year
from tests.bench.installation import GPUS, HOSTS, core, furnish
from tests.bench.report import Figure, Report, percentile
from tests.bench.week import Portal, portal
from tests.factories import make_admin

START, DAYS, MINUTES = datetime(2026, 1, 1, tzinfo=UTC), 365, 30
KEPT_DAYS = 35  # as the rules have it by default
MOST_MONTH_MS, MOST_YEAR_MS, MOST_BYTES = 150, 400, 60
TABLES = (
    "usage_minutes",
    "usage_hours",
    "usage_days",
    "usage_host_hours",
    "usage_pieces",
    "usage_batches",
    "consumers",
)
HOW = (
    "/reports for an admin, after {days} days of 64 GPUs in eight hosts: {rows:,} minutes loaded by COPY in {took:.0f} "
    "s, {bookings:,} bookings of {people} people in {teams} teams, "
    "{events:,} audit events and {waits:,} places on the waiting list. The whole page with gzip, from the request's "
    "environment to the last byte, in one process; {rounds} rounds of {times} pages, one by one in turn. Bytes are "
    "tables with their indexes, by GPU and minute: as delivered every ten seconds for {minutes} minutes, and as loaded."
)


def measure(settings: Settings, days: int = DAYS, *, times: int = 10, rounds: int = 3) -> Report:
    """One installation, filled and asked."""
    end = START + timedelta(days=days)
    with clock.frozen(end):
        with core(settings):
            furnish()
            year.people()
            with transaction():
                admin = make_admin("boss")
            delivered = _deliver()
            began = time.perf_counter()
            year.load(START, days, "UTC")
            took = time.perf_counter() - began
            happened.load(START, days)
            weights = {name: _size(name) for name in TABLES}
            rows = _count("usage_minutes")
            bookings = _count("bookings")
            beside = {"events": _count("audit_events"), "waits": _count("waits")}
        with portal(settings, admin.username) as one:
            pages = _ask(one, _addresses(end), times, rounds)
    figures = (*_times(pages), *_weights(weights, rows, delivered, days))
    values = {"days": days, "rows": rows, "took": took, "bookings": bookings, "people": year.PEOPLE}
    how = HOW.format(**values, **beside, teams=year.TEAMS, rounds=rounds, times=times, minutes=MINUTES)
    return Report("reports", how, figures)


def _addresses(end: datetime) -> dict[str, str]:
    last = (end - timedelta(days=1)).date()
    year_ = f"/reports?period=custom&from={START.date()}&to={last}&group="
    return {
        "last month, by person": "/reports?period=last-month",
        "the year, by team": year_ + "team",
        "the year, by person": year_ + "person",
    }


def _ask(one: Portal, addresses: dict[str, str], times: int, rounds: int) -> dict[str, tuple[float, ...]]:
    for path in addresses.values():
        one.get(path)
    taken = [[[one.get(path)[0] for path in addresses.values()] for _ in range(times)] for _ in range(rounds)]
    by_page = zip(*(zip(*of_round, strict=True) for of_round in taken), strict=True)
    return {
        name: tuple(percentile(found, 0.5) for found in of_page)
        for name, of_page in zip(addresses, by_page, strict=True)
    }


def _times(pages: dict[str, tuple[float, ...]]) -> Iterator[Figure]:
    most = (MOST_MONTH_MS, MOST_YEAR_MS, None)
    for (name, taken), target in zip(pages.items(), most, strict=True):
        yield Figure(f"p50, {name}", taken, "ms", most=target)


def _weights(weights: dict[str, int], rows: int, delivered: float, days: int) -> Iterator[Figure]:
    """Of a GPU's minute: while it is kept by itself, and of all minutes of a year when the old ones are gone."""
    by_minute = weights["usage_minutes"] / rows
    folded = sum(weights[name] for name in TABLES[1:5]) / rows
    yield Figure("bytes of a minute, loaded", (by_minute,))
    yield Figure("bytes of a minute, delivered by tens of seconds", (delivered,))
    yield Figure("bytes by GPU and minute, folded to hours, days and pieces", (folded,), most=MOST_BYTES)
    whole = folded + max(by_minute, delivered) * KEPT_DAYS / max(days, KEPT_DAYS)
    yield Figure(f"the same with {KEPT_DAYS} days of minutes, over {days} days", (whole,), most=MOST_BYTES)


def _deliver() -> float:
    """Some minutes as agents deliver them, six parts of each; the bytes by GPU and minute. Leaves nothing behind."""
    with transaction():
        hosts = db.session.scalars(sa.select(Host)).all()
        gpus: dict[int, Sequence[str]] = {
            host.id: db.session.scalars(sa.select(Gpu.pci_address).where(Gpu.host_id == host.id)).all()
            for host in hosts
        }
    for number in range(6 * MINUTES):
        minute = START + timedelta(minutes=number // 6)
        for host_id, addresses in gpus.items():
            parts = [Part(one, minute, 0, "", 10_000, 4_000, 900, 4096, 50) for one in addresses]
            with transaction():
                samples.deliver(host_id, f"{number}", parts)
    size = _size("usage_minutes") / (MINUTES * HOSTS * GPUS)
    with transaction() as session:
        session.execute(sa.text("TRUNCATE usage_minutes, usage_hours, usage_days, usage_host_hours, usage_batches"))
        session.execute(sa.delete(Consumer))
    return size


def _size(table: str) -> int:
    return int(db.session.scalar(sa.select(sa.func.pg_total_relation_size(table))) or 0)


def _count(table: str) -> int:
    return int(db.session.scalar(sa.text(f"SELECT count(*) FROM {table}")) or 0)
