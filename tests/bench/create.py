"""How many bookings a second, how long each takes, and what each costs: over the API, against the portal as served."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from multiprocessing.pool import Pool

import sqlalchemy as sa

from app.config import Settings
from app.extensions import db, transaction
from app.models import Allocation, Booking, EntryKind, Gpu, LedgerEntry
from app.services import tokens
from tests.bench.installation import core, furnish
from tests.bench.others import watch
from tests.bench.report import Figure, Report, percentile
from tests.factories import make_user
from tests.served import Client, Portal, portal

CLIENTS = 8
HOUR = timedelta(hours=1)
HOW = (
    "{clients} clients, each a process and a person with an account of their own, POST /api/v1/bookings one after the "
    "other: one named GPU for one hour; each client goes round the eight hosts, hour by hour from tomorrow on, so "
    "nobody is refused. {rounds} rounds of {number} bookings after a warm-up of {warm}; two web processes; {durable}."
)


@dataclass(frozen=True)
class Job:
    """What one client books: `gpus` in turn, an hour each, from `start` on; its bookings number `first` to `last`."""

    port: int
    token: str
    gpus: tuple[int, ...]
    start: datetime
    first: int = 0
    last: int = 0

    def ask(self, number: int) -> dict[str, object]:
        hours, turn = divmod(number, len(self.gpus))
        start = self.start + hours * HOUR
        return {"gpus": [self.gpus[turn]], "starts_at": start.isoformat(), "ends_at": (start + HOUR).isoformat()}


@dataclass(frozen=True)
class Round:
    """One round: when each booking was sent and answered; meanwhile the CPU seconds of the web processes, and how many
    cores others took."""

    spans: tuple[tuple[float, float], ...]
    cpu: float
    others: float

    @property
    def rate(self) -> float:
        return len(self.spans) / (max(end for _, end in self.spans) - min(start for start, _ in self.spans))

    def milliseconds(self, share: float) -> float:
        return 1000 * percentile([end - start for start, end in self.spans], share)

    @property
    def cpu_each(self) -> float:
        return 1000 * self.cpu / len(self.spans)


def measure(settings: Settings, *, each: int = 500, warm: int = 50, rounds: int = 3) -> Report:
    """`each`: bookings per client and round. Raises if an answer is not 201 or the books are not exactly right."""
    with core(settings):
        gpus = [gpu.id for gpu in furnish()]
        people = _tokens()
        more = {"REDIS_URL": settings.redis_url, "BERTH_RATE_LIMITS": str(int(settings.rate_limits))}
        with (
            portal(settings.database_url, settings.data_dir, **more) as served,
            get_context("fork").Pool(CLIENTS) as pool,
        ):
            jobs = [_job(served, token, gpus[number::CLIENTS]) for number, token in enumerate(people)]
            _round(served, pool, jobs, 0, warm)
            found = [_round(served, pool, jobs, warm + each * turn, each) for turn in range(rounds)]
        _check((warm + each * rounds) * CLIENTS)
        durable = _durable()
    how = HOW.format(clients=CLIENTS, rounds=rounds, number=each * CLIENTS, warm=warm * CLIENTS, durable=durable)
    return Report("create", how, _figures(found))


def _figures(found: Sequence[Round]) -> tuple[Figure, ...]:
    rate = tuple(one.rate for one in found)
    cpu = tuple(one.cpu_each for one in found)
    p50, p99 = (tuple(one.milliseconds(share) for one in found) for share in (0.5, 0.99))
    return (
        Figure("bookings a second", rate, "/s", least=200, others="TensorHive 53, LibreBooking 52"),
        Figure("time of one, p50", p50, "ms"),
        Figure("time of one, p99", p99, "ms", most=80, others="TensorHive 244, LibreBooking 207"),
        Figure("web CPU of one", cpu, "ms", most=5, others="TensorHive 19, LibreBooking 35"),
        Figure("cores that other programs took", tuple(one.others for one in found)),
    )


def _tokens() -> list[str]:
    with transaction():
        people = [make_user(f"person-{number}", hours=100_000) for number in range(CLIENTS)]
        return [tokens.create(person, "bench", ["book"])[1] for person in people]


def _job(served: Portal, token: str, gpus: Sequence[int]) -> Job:
    tomorrow = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) + timedelta(days=1)
    return Job(served.port, token, tuple(gpus), tomorrow)


def _round(served: Portal, pool: Pool, jobs: Sequence[Job], first: int, each: int) -> Round:
    now = [Job(job.port, job.token, job.gpus, job.start, first, first + each) for job in jobs]
    workers, before, others = served.workers(), served.cpu_seconds(), watch()
    spans = tuple(span for one in pool.map(_drive, now, chunksize=1) for span in one)
    assert served.workers() == workers, "a web process was replaced"
    return Round(spans, served.cpu_seconds() - before, others())


def _drive(job: Job) -> list[tuple[float, float]]:
    """In a client's process: book, one after the other; when each was sent and answered."""
    spans = []
    with Client(job.port, job.token) as client:
        for number in range(job.first, job.last):
            ask = job.ask(number)
            sent = time.monotonic()
            status, answer = client.post("/api/v1/bookings", ask)
            spans.append((sent, time.monotonic()))
            assert status == 201, f"{status}: {answer}"
    return spans


def _check(number: int) -> None:
    """The database holds exactly that many bookings, and each is paid for."""
    holds = sa.select(sa.func.count(), -sa.func.sum(LedgerEntry.amount)).where(LedgerEntry.kind == EntryKind.HOLD)
    counts = [db.session.scalar(sa.select(sa.func.count()).select_from(table)) for table in (Booking, Allocation)]
    entries, held = db.session.execute(holds).one()
    assert [*counts, entries, held] == [number, number, number, number * 3600], f"{counts}, {entries}, {held}"
    assert db.session.scalar(sa.select(sa.func.count()).select_from(Gpu)) == 64


def _durable() -> str:
    """How the server commits, in its own words."""
    names = ("fsync", "synchronous_commit", "full_page_writes")
    return ", ".join(f"{name} {db.session.scalar(sa.text(f'SHOW {name}'))}" for name in names)
