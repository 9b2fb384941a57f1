"""What people do in the portal during a fault run, mostly without waiting for what comes of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from subprocess import TimeoutExpired

from sqlalchemy.exc import SQLAlchemyError

from app import clock
from app.errors import DomainError
from app.extensions import db, transaction
from app.models import Gpu
from app.services import accounts, bookings, changes
from app.services.claims import Ask
from tests.lab.fault_moves import Done, Step
from tests.lab.fault_watch import Watch
from tests.lab.lab import Lab
from tests.lab.scene import Scene

BACKLOG = 6  # moves under way at most


@dataclass
class Members:
    """Carries out what people do in the portal; `Hand` adds what is done on the host and in the machines."""

    scene: Scene
    host: Lab
    people: list[str]
    watch: Watch
    history: list[Done] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.booked: list[tuple[str, int, float]] = []  # whose, the booking's number, and its end at first
        self._pool = ThreadPoolExecutor(3)
        self._jobs: list[Future[None]] = []

    def do(self, step: Step) -> None:
        """Begin a step; what takes long goes on by itself."""
        time.sleep(step.pause)
        while len(self._jobs) >= BACKLOG:
            self._jobs = [job for job in self._jobs if not job.done()]
            time.sleep(0.02)
        getattr(self, f"_{step.verb}")(step, *step.numbers)

    def finish(self) -> None:
        """Wait for all that is under way."""
        for job in self._jobs:
            job.result()
        self._jobs = []

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def change(self, work: Callable[[], str]) -> str:
        """Something that a person does in the portal; what came of it."""
        with self.scene.app.app_context():
            try:
                with transaction():
                    said = work()
            except DomainError as error:
                return str(error)
            except SQLAlchemyError as error:
                db.session.remove()
                db.engine.dispose()
                return f"the database is away: {str(error).splitlines()[0]}"
        with suppress(Exception):  # Valkey may be away
            self.scene.wake(self.host)
        return said

    def _later(self, step: Step, what: str, work: Callable[[], str]) -> None:
        done = Done(step, time.time(), what)
        self.history.append(done)

        def run() -> None:
            try:
                done.came = work() or "done"
            except (RuntimeError, OSError, TimeoutExpired, AssertionError) as error:
                done.came = f"no: {str(error).strip()[-160:]}"
            done.came += f" ({time.time() - done.at:.1f} s)"

        self._jobs.append(self._pool.submit(run))

    def _now(self, step: Step, what: str, work: Callable[[], str]) -> None:
        done = Done(step, time.time(), what)
        self.history.append(done)
        done.came = work()

    def take(self, name: str, gpus: Sequence[int], start: float, end: float) -> str:
        minors = [self.host.minors[gpu] for gpu in gpus]

        def work() -> str:
            row = self.scene.row(self.host)
            ids = db.session.scalars(db.select(Gpu.id).where(Gpu.host_id == row.id, Gpu.minor.in_(minors))).all()
            window = {"starts_at": datetime.fromtimestamp(start, UTC), "ends_at": datetime.fromtimestamp(end, UTC)}
            booking = bookings.create(accounts.get(name), Ask(gpu_ids=tuple(ids), host=row.name, **window), 1)
            number = booking.id
            self.booked.append((name, number, end))
            return f"booking {number}"

        return self.change(work)

    def _book(self, step: Step, who: int, gpu: int, wait: int, length: int, *, more: Sequence[int] = ()) -> None:
        start = int(time.time()) + wait
        name, gpus = self.people[who], [gpu, *more]
        what = f"{name} books {gpus} from +{wait} s for {length + 1} s"
        self._now(step, what, lambda: self.take(name, gpus, start, start + length + 1))

    def _book_two(self, step: Step, who: int, gpu: int, wait: int, length: int) -> None:
        self._book(step, who, gpu, wait, length, more=[(gpu + 1) % len(self.host.minors)])

    def _relay(self, step: Step, who: int, other: int, gpu: int, wait: int, length: int) -> None:
        start, each = int(time.time()) + wait, length + 1
        for place, one in enumerate((who, other)):
            begin = start + place * each
            what = f"{self.people[one]} books [{gpu}] from +{wait + place * each} s for {each} s, in turns"
            self._now(step, what, lambda one=one, begin=begin: self.take(self.people[one], [gpu], begin, begin + each))

    def _changed(self, step: Step, verb: str, which: int, work: Callable[[str, int], object]) -> None:
        """Of a booking that is not over, if there is one."""
        found = [one for one in self.booked if one[2] > time.time()] or self.booked[-1:]
        if not found:
            return
        name, number, _end = found[which % len(found)]

        def run() -> str:
            work(name, number)
            return "done"

        self._now(step, f"{name} {verb} booking {number}", lambda: self.change(run))

    def _end(self, step: Step, which: int) -> None:
        self._changed(step, "ends", which, lambda name, number: changes.end_now(accounts.get(name), number))

    def _cancel(self, step: Step, which: int) -> None:
        self._changed(step, "cancels", which, lambda name, number: changes.cancel(accounts.get(name), number))

    def _shorten(self, step: Step, which: int) -> None:
        soon = clock.now() + timedelta(seconds=1)
        self._changed(
            step, "shortens", which, lambda name, number: changes.move_end(accounts.get(name), number, soon, 1)
        )

    def _extend(self, step: Step, which: int, seconds: int) -> None:
        later = clock.now() + timedelta(seconds=2 + seconds)
        self._changed(
            step, "extends", which, lambda name, number: changes.move_end(accounts.get(name), number, later, 1)
        )
