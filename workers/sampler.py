"""Reads what the host's GPUs do, every two seconds, and writes down whose it was, every ten.

In a thread of its own, with no database: what it finds goes to a journal on disk, and from there to the database
(`workers.delivery`) when that is there. Killed at any moment, it loses what came after the last look at processes.

It reads GPUs that are in service, and keeps those open. A GPU that has to be reset, or a host whose driver has to be
loaded anew, is taken out of service first, which the sampler sees by the next pass.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Iterable
from datetime import UTC, datetime, timedelta

from app import clock
from app.config import Settings
from app.drivers.gauges import Gauge, Running
from app.drivers.kernel import Kernel, Process
from app.services.attribution import Period, Use, Whose, booked, owners
from app.services.metrics import Reading
from app.services.samples import Now, Part
from workers.evictor import Evictor
from workers.journal import MOST_PARTS, Journal
from workers.locks import Held, exclusive
from workers.unbooked import Stray, Unbooked

log = logging.getLogger(__name__)

EVERY = 2.0  # seconds between two readings
LOOK = 5  # readings from one look at processes to the next
LONGEST = 10.0  # seconds that one reading can stand for; what is longer is not known
AGAIN = 10.0  # seconds until it is tried again whether another agent of the host has ended
_SET = 100  # milliseconds that two clocks may differ, as they go
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNWRITTEN = 20_000  # parts that are kept in memory while nothing can be written to the disk


class Sampler:
    """One host's. `now`: the latest of each GPU. Without a kernel (the host is another machine) it has nothing to do.

    `every`: seconds between two readings."""

    def __init__(self, settings: Settings, host_name: str, evictor: Evictor, every: float = EVERY) -> None:
        self.host_name, self.every = host_name, every
        self.journal = Journal(settings.data_dir / "agents" / f"{host_name}.usage")
        self.now: dict[str, Now] = {}
        self.unbooked = Unbooked(evictor)
        self._evictor = evictor
        self._lock = settings.run_dir / f"sampler-{host_name}.lock"
        self._periods: dict[str, Period] = {}
        self._moments: dict[str, int] = {}  # when each was read last: milliseconds of the monotonic clock
        self._ahead = 0
        self._over: dict[str, Period] = {}  # those before, of GPUs that are somebody else's since this reading
        self._rows: dict[str, list[dict[str, object]]] = {}  # the processes of the last look
        self._known: dict[int, Process] = {}  # those of the look before: who has ended since is still somebody's
        self._count = 0
        self._unwritten: list[Part] = []
        self._trouble = ""
        self.reads = True  # unless another agent of the host does: then the journal is that one's

    def readings(self) -> list[Reading]:
        """The latest of each GPU, for monitors."""
        known = {gpu.pci_address: gpu for gpu in self._evictor.gpus()}
        now = self.now.copy()
        return [(str(known[pci].minor), known[pci].model, now[pci]) for pci in now.keys() & known.keys()]

    def run(self, stop: threading.Event) -> None:
        """Read until `stop` is set, unless another agent of the host does."""
        try:
            while not stop.is_set():
                self._read(stop)
        finally:
            self.unbooked.found.set()  # whoever waits for what is found has nothing more to wait for

    def _read(self, stop: threading.Event) -> None:
        if self._evictor.kernel is None:
            stop.wait()
            return
        try:
            with exclusive(self._lock, wait=False):
                self.reads = True
                self._run(self._evictor.kernel, stop)
        except Held:
            self.reads = False
            stop.wait(AGAIN)

    def _run(self, kernel: Kernel, stop: threading.Event) -> None:
        due = time.monotonic()
        while not stop.wait(max(0.0, due - time.monotonic())):
            due = max(due + self.every, time.monotonic())
            try:
                self.step(kernel, clock.now())
            except Exception:
                log.exception("reading the GPUs of %s failed", self.host_name)
        kernel.gauges.close()
        self._write([part for pci in list(self._periods) for part in self._close(pci, None, None)])
        self.journal.close()

    def step(self, kernel: Kernel, at: datetime, elapsed: float | None = None) -> None:
        """One reading, `elapsed` seconds after the one before, by itself as the gauges say; a first one stands for no
        time."""
        self._set_clock(at)
        seen, last = self._evictor.seen, self._evictor.last
        if not seen.looked and last is None:
            return  # nobody knows yet whose anything is
        owned, addresses = booked(last) if last and not seen.looked else owners(seen), self._addresses()
        changed = {pci for pci in self._periods.keys() & addresses if self._periods[pci].owner != owned.get(pci)}
        look = self._count % LOOK == 0 or bool(changed) or self.unbooked.pending
        self._count += 1
        self._over = {pci: self._hand_over(pci, owned[pci]) for pci in changed & owned.keys()}
        gauges = kernel.gauges.read(addresses, processes=look)
        self._tell(gauges)
        for gauge in gauges:
            period = self._periods.setdefault(gauge.pci_address, Period(owned.get(gauge.pci_address)))
            if not gauge.trouble:
                period.add(*self._span(gauge, at, elapsed), gauge.busy, gauge.values)
        if look:
            people = kernel.whose(seen, {one.pid for gauge in gauges for one in gauge.processes or ()})
            self._look(gauges, people, owned)
        for gauge in gauges:
            pci, rows = gauge.pci_address, [] if gauge.trouble else self._rows.get(gauge.pci_address, [])
            self.now[pci] = Now(pci, at, gauge.values, rows, gauge.trouble)
        for pci in self._periods.keys() - addresses:  # out of service now
            self._write(self._close(pci, None, None))
            self.now.pop(pci, None)

    def _span(self, gauge: Gauge, at: datetime, elapsed: float | None) -> tuple[datetime, int]:
        """Until when this reading stands, and for how many milliseconds: since the one before, unless that was too long
        ago. In whole milliseconds of one clock, so that a minute has 60,000."""
        if elapsed is not None:
            return at, round(1000 * elapsed)
        now = round(1000 * gauge.moment)
        last, self._moments[gauge.pci_address] = self._moments.get(gauge.pci_address, now), now
        until = _EPOCH + timedelta(milliseconds=now + self._ahead)
        return until, now - last if now - last <= 1000 * LONGEST else 0

    def _set_clock(self, at: datetime) -> None:
        """By how much the time of day is ahead of the monotonic clock: changed only when somebody has set it."""
        ahead = round(1000 * (at.timestamp() - time.monotonic()))
        if abs(ahead - self._ahead) > _SET:
            self._ahead = ahead

    def _hand_over(self, pci: str, owner: Whose) -> Period:
        """Begin a period of who has the GPU from now on; the one before, in which they cannot have used it. A GPU that
        is nobody's from now on is of who had it until the next look: what still runs there is theirs."""
        before, self._periods[pci] = self._periods[pci], Period(owner)
        self._periods[pci].entitle(before.owner)
        return before

    def _addresses(self) -> frozenset[str]:
        """The GPUs to read: those in service, or all as long as the database has never said which these are."""
        last = self._evictor.last
        return last.guarded if last else frozenset(gpu.pci_address for gpu in self._evictor.gpus())

    def _leaving(self) -> dict[str, Whose]:
        """Who may go on for a moment though their booking is over: the grace."""
        endings = self._evictor.last.endings if self._evictor.last else ()
        return {
            one.gpu.pci_address: Whose(one.tag.booking_id, one.instance)
            for one in endings
            if one.instance and one.kill_at > clock.now()
        }

    def _look(self, gauges: Collection[Gauge], people: dict[int, Process], owned: dict[str, Whose]) -> None:
        """Close all periods with the processes that are there, and begin new ones."""
        known, self._known = self._known | people, people
        parts, strays, leaving = [], [], self._leaving()
        for gauge in gauges:
            pci, period, told = gauge.pci_address, self._periods[gauge.pci_address], gauge.processes is not None
            period.entitle(leaving.get(pci))
            listed = [(one, known[one.pid]) for one in gauge.processes or () if one.pid in known]
            uses = [Use(period.whose(who.instance), one.memory, one.utilisation) for one, who in listed]
            if period.owner:  # who ran between two looks, and is gone, was in the machine that has the GPU
                passed = [one for one in gauge.processes or () if one.pid not in known and one.utilisation]
                uses += [Use(period.owner, one.memory or 0, one.utilisation) for one in passed]
            alive = [(one, who) for one, who in listed if one.pid in people]
            if before := self._over.pop(pci, None):
                new = self._periods[pci].owner
                earlier = [one for one in uses if new is None or one.whose.instance != new.instance]
                parts += before.parts(pci, earlier if told else None, gauge.occupied)
            strays += [Stray(pci, one, who) for one, who in alive if not period.whose(who.instance).booking]
            self._rows[pci] = [_row(period, one, who) for one, who in alive]
            parts += self._close(pci, uses if told else None, gauge.occupied)
            self._periods[pci] = Period(owned.get(pci))
        self.unbooked.look(strays)
        self._write(parts)

    def _close(self, pci: str, uses: list[Use] | None, occupied: float | None) -> list[Part]:
        return self._periods.pop(pci).parts(pci, uses, occupied)

    def _write(self, parts: Iterable[Part]) -> None:
        """To the journal; what cannot be written there is kept for the next time."""
        self._unwritten = [*self._unwritten, *parts][-_UNWRITTEN:]
        try:
            while self._unwritten:
                self.journal.write(self._unwritten[:MOST_PARTS])
                del self._unwritten[:MOST_PARTS]
        except OSError as error:
            log.warning("%s: what GPUs did cannot be written down now: %s", self.host_name, error)

    def _tell(self, gauges: Iterable[Gauge]) -> None:
        """Log trouble with a GPU when it begins and ends."""
        trouble = "; ".join(sorted({f"{one.pci_address}: {one.trouble}" for one in gauges if one.trouble}))
        if trouble != self._trouble:
            log.info("GPUs of %s: %s", self.host_name, trouble or "all can be read again")
            self._trouble = trouble


def _row(period: Period, running: Running, process: Process) -> dict[str, object]:
    return {
        "pid": running.pid,
        "instance": process.instance,
        "booking": period.whose(process.instance).booking,
        "memory": running.memory,
        "utilisation": running.utilisation,
        "name": process.name,
        "computes": running.computes,
    }
