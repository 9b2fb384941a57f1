"""What it costs to read what GPUs do: as it runs, and whether it grows in a day."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from flask import Flask

from app import clock
from app.config import Settings
from app.drivers.base import DeviceSeen, HostSeen, InstanceSeen, Node, Tag, device_name
from app.drivers.fake import FakeLxd
from app.drivers.holders.host import HostKernel
from app.extensions import db, transaction
from app.models import Gpu, UsageMinute
from app.services.plan import Desired
from tests.bench.installation import core
from tests.bench.report import Figure, Report, after_sleep
from tests.drivers.boxes import Box, unique
from tests.drivers.nvml_stub import Process, Stub, build, whole
from tests.factories import gpus_of, make_booking, make_host, make_user
from workers.delivery import DELIVER_EVERY, SHOW_EVERY, Delivery
from workers.evictor import Evictor
from workers.sampler import EVERY, Sampler

GPUS, PROCESSES = 8, 40
SECONDS, ROUNDS, HOURS = 20.0, 3, 24.0
BEGIN = datetime(2026, 11, 4, 9, tzinfo=UTC)
TARGET_SHARE, TARGET_MIB = 1.0, 60.0
MAY_GROW_MIB, MAY_GROW_BYTES = 2.0, 4096


class Size(NamedTuple):
    """What is held: MiB resident and descriptors of us and of the process that asks NVML, bytes in the journal."""

    own: float
    child: float
    descriptors: int
    journal: int


class Bench:
    """A sampler over eight GPUs, each booked, with five processes of a container each."""

    def __init__(self, app: Flask, settings: Settings, stub: Stub, instances: dict[str, list[int]]) -> None:
        with transaction():
            host = make_host("lab01", gpus=GPUS)
            gpus = gpus_of(host)
            people = [make_user(name) for name in instances]
            bookings = [
                make_booking(person, [gpu], BEGIN, BEGIN + timedelta(days=2))
                for person, gpu in zip(people, gpus, strict=True)
            ]
        self.kernel = HostKernel(lambda: None, gauges=stub.gauges())
        evictor = Evictor(FakeLxd(settings.data_dir / "sim" / "lab01.json", gpus=GPUS), self.kernel)
        evictor.last = Desired(host.id, BEGIN, guarded=frozenset(gpu.pci_address for gpu in gpus))
        seen = [
            InstanceSeen(name, "running", devices=(_device(gpu, booking.id),), init=pids[0])
            for (name, pids), gpu, booking in zip(instances.items(), gpus, bookings, strict=True)
        ]
        evictor.seen = HostSeen({one.name: one for one in seen})
        stub.say(*[_card(gpu, pids) for gpu, pids in zip(gpus, instances.values(), strict=True)])
        self.sampler = Sampler(settings, "lab01", evictor)
        self.delivery = Delivery(app, "lab01", self.sampler)

    def run(self, seconds: float) -> float:
        """As an agent runs it; the share of a core, in per cent, of us and of the process that asks NVML."""
        stop = threading.Event()
        threads = [threading.Thread(target=one.run, args=(stop,)) for one in (self.sampler, self.delivery)]
        for thread in threads:
            thread.start()
        time.sleep(EVERY)  # NVML is being started
        before, began = time.process_time(), time.monotonic()
        pid = self._child()
        child = _cpu(pid)
        time.sleep(seconds)
        used = time.process_time() - before + _cpu(pid) - child
        share = 100 * used / (time.monotonic() - began)
        stop.set()
        for thread in threads:
            thread.join()
        while self.kernel.gauges._still_hangs():  # killed, and on its way out
            time.sleep(0.05)
        return share

    def live(self, begin: datetime, hours: float, *, shown: float = DELIVER_EVERY) -> datetime:
        """So many hours, without waiting for them; when they are over. `shown`: every so many seconds what GPUs are
        at is brought to the database; that is replaced there, never added."""
        at = begin
        for number in range(1, round(hours * 3600 / EVERY) + 1):
            at = begin + timedelta(seconds=EVERY * number)
            with clock.frozen(at):
                self.sampler.step(self.kernel, at, EVERY)
                if number % (DELIVER_EVERY // EVERY) == 0:
                    self.delivery._delivered = -DELIVER_EVERY
                if number % (shown // EVERY) == 0:
                    self.delivery.step()
        return at

    def worked(self, begin: datetime, hours: float) -> tuple[datetime, float]:
        """As an agent's hours, shown as often, but one reading after the other; when they are over, and the share of a
        core that they would take, in per cent."""
        before, child = time.process_time(), _cpu(self._child())
        end = self.live(begin, hours, shown=SHOW_EVERY)
        used = time.process_time() - before + _cpu(self._child()) - child
        return end, 100 * used / (end - begin).total_seconds()

    def finish(self) -> None:
        """What was read since the last look, too."""
        self.sampler._write(
            [part for pci in list(self.sampler._periods) for part in self.sampler._close(pci, [], None)]
        )
        self.delivery.deliver(db.session.scalars(db.select(Gpu.host_id)).first() or 0)

    def size(self) -> Size:
        gc.collect()
        pid = self._child()
        files = self.sampler.journal.folder.iterdir() if self.sampler.journal.folder.exists() else ()
        return Size(
            resident(os.getpid()),
            resident(pid),
            sum(len(list(Path(f"/proc/{one}/fd").iterdir())) for one in (os.getpid(), pid)),
            sum(path.stat().st_size for path in files),
        )

    def _child(self) -> int:
        (pid,) = self.kernel.gauges.own
        return pid


def measure(
    settings: Settings,
    folder: Path,
    *,
    processes: int = PROCESSES,
    seconds: float = SECONDS,
    rounds: int = ROUNDS,
    hours: float = HOURS,
) -> Report:
    """One host's sampler with its delivery into a real database."""
    with ExitStack() as stack:
        app = stack.enter_context(core(settings))
        instances = stack.enter_context(crowd(processes))
        db.session.execute(db.select(1))
        db.session.remove()
        before = resident(os.getpid())
        bench = Bench(app, settings, Stub(build(folder), folder / "nvml.state"), instances)
        stack.callback(bench.kernel.close)
        shares = tuple(bench.run(seconds) for _ in range(rounds))
        idle = tuple(after_sleep(EVERY) for _ in range(rounds))
        bench.live(BEGIN - timedelta(hours=1), EVERY / 3600)  # NVML is being started again
        middle, worked = BEGIN, []
        for _ in range(rounds):
            middle, share = bench.worked(middle, hours / 24 / rounds)
            worked.append(share)
        first = bench.size()
        end = bench.live(middle, hours - hours / 24)
        bench.finish()
        last = bench.size()
        minutes = db.session.scalar(
            db.select(db.func.sum(UsageMinute.sampled_ms)).where(UsageMinute.minute >= BEGIN, UsageMinute.minute < end)
        )
    expected = (end - BEGIN) / timedelta(milliseconds=1) * GPUS
    return Report(
        "sampler",
        f"{GPUS} GPUs with {processes} processes over an NVML of our own, real pynvml, journal on disk, PostgreSQL; a "
        f"reading every {EVERY:g} s, shown every {SHOW_EVERY:g} s, delivered every {DELIVER_EVERY:g} s; {seconds:g} s "
        f"as it runs, then {hours:g} h with a clock of its own",
        (
            Figure("share of a core, agent and NVML's process", shares, "%", most=TARGET_SHARE),
            Figure("the same work, one reading after the other", tuple(worked), "%", most=TARGET_SHARE),
            Figure(f"what {EVERY:g} s of sleep make of any work here", idle, "times"),
            Figure("resident, what it adds to the agent", (max(0.0, last.own - before),), "MiB"),
            Figure("resident, the process that asks NVML", (last.child,), "MiB"),
            Figure("resident, both", (max(0.0, last.own - before) + last.child,), "MiB", most=TARGET_MIB),
            Figure("growth after the first hour of 24", (_grown(first, last),), "MiB", most=MAY_GROW_MIB),
            Figure("descriptors more", (max(0, last.descriptors - first.descriptors),), most=0),
            Figure("journal left", (last.journal,), "bytes", most=MAY_GROW_BYTES),
            Figure("time that is somebody's", (100 * (minutes or 0) / expected,), "%", least=99.9, most=100.01),
        ),
    )


@contextmanager
def crowd(processes: int) -> Iterator[dict[str, list[int]]]:
    """Processes by container; as root in cgroups as LXD makes them."""
    with ExitStack() as stack:
        found: dict[str, list[int]] = {}
        for _ in range(GPUS):
            name = unique()
            box = Box(name) if os.geteuid() == 0 else None
            stack.callback(box.remove) if box else stack.enter_context(nullcontext())
            pids = [box.init] if box else []
            while len(pids) < processes // GPUS:
                pids.append(box.run("") if box else _sleeper(stack))
            found[name] = pids
        yield found


def _sleeper(stack: ExitStack) -> int:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(7200)"])
    stack.callback(process.wait)
    stack.callback(process.kill)
    return process.pid


def _device(gpu: Gpu, booking: int) -> DeviceSeen:
    tag = Tag(booking, 1, int((BEGIN + timedelta(days=2)).timestamp()))
    return DeviceSeen(device_name(gpu.pci_address), gpu.pci_address, ours=True, node=Node.PRESENT, tag=tag)


def _card(gpu: Gpu, pids: list[int]) -> object:
    known = {pid: Process(1000 + number, share=5 + number) for number, pid in enumerate(pids)}
    return whole(gpu.minor + 1, 60, compute=pids, known=known)


def _grown(first: Size, last: Size) -> float:
    return max(0.0, last.own - first.own) + max(0.0, last.child - first.child)


def resident(pid: int) -> float:
    """MiB."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def _cpu(pid: int) -> float:
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
