"""Who holds which GPU of a host, looked at from this command: with what the database knows, or without it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from app.cli.base import Failed
from app.config import Settings
from app.drivers.base import DriverError, GpuInfo, HostSeen, LxdDriver
from app.drivers.connect import connect, kernel_of
from app.drivers.kernel import HOST, Holder, Kernel, Scan
from app.extensions import NOT_RUNNING, database_trouble, transaction
from app.services import drift, enforcement, inventory
from app.services.plan import Desired


@dataclass
class Sight:
    """What was seen. `want` None: the database is of no use. `notes`: what could not be asked, and what that means."""

    host: str
    kernel: Kernel
    want: Desired | None
    gpus: tuple[GpuInfo, ...] = ()
    scan: Scan = field(default_factory=Scan)
    lxd: bool = True
    notes: list[str] = field(default_factory=list)

    def rows(self) -> list[dict[str, Any]]:
        """A row for each process and GPU; `gpu` is None for one that keeps what could not be looked at."""
        rows = [
            self._row(one, gpu)
            for one in self.scan.holders
            for gpu in [gpu for gpu in self.gpus if gpu.numbers & one.numbers] or (None,)
        ]
        return sorted(rows, key=lambda row: (row["gpu"] or "~", row["instance"] or "", row["pid"], row["how"]))

    def _row(self, one: Holder, gpu: GpuInfo | None) -> dict[str, Any]:
        return {
            "gpu": gpu.pci_address if gpu else None,
            "minor": gpu.minor if gpu else None,
            "instance": None if one.instance == HOST else drift.shown(one.instance),
            "pid": one.pid,
            "name": drift.shown(one.name),
            "how": str(one.how),
            "booked": self._booked(one.instance, gpu),
        }

    def _booked(self, instance: str, gpu: GpuInfo | None) -> bool | None:
        """Whether the instance has it booked now; None where that is not known."""
        if instance == HOST:
            return False
        if self.want is None or not self.lxd or gpu is None:
            return None
        return any((item.instance, item.gpu.pci_address) == (instance, gpu.pci_address) for item in self.want.wants)


@contextmanager
def look(given: Settings, name: str) -> Iterator[Sight]:
    """Look at a host, which has to be this machine, within the app's context if there is a database.

    Raises Failed where it cannot be looked at, NotFound for a host that the database does not know."""
    from app import create_core  # noqa: PLC0415 - `berth --help` needs no portal

    with create_core(given).app_context() if given.database_url else nullcontext():
        endpoint, want, trouble = _asked(given, name)
        if endpoint.startswith("/") and os.geteuid() != 0:
            raise Failed("Only root sees what every process holds: run this with sudo.")
        driver = connect(endpoint, name, given.data_dir)
        kernel = kernel_of(driver, endpoint, name, given.data_dir)
        if kernel is None:
            raise Failed(f"{name} is another machine than this one: run this there, as root.")
        sight = Sight(name, kernel, want)
        if want is None:
            sight.notes.append(f"{trouble} What is booked is not known.")
        try:
            _see(sight, driver)
            yield sight
        finally:
            kernel.close()


def _asked(given: Settings, name: str) -> tuple[str, Desired | None, str]:
    """Where the host's LXD is, and who should have what; without the database what the agent kept, and why without."""
    trouble = NOT_RUNNING
    if given.database_url:
        try:
            with transaction():
                host = inventory.host(name)
                return host.endpoint, enforcement.desired(host), ""
        except SQLAlchemyError as error:
            trouble = database_trouble(error)
    try:
        return (given.data_dir / "agents" / f"{name}.endpoint").read_text(), None, trouble  # as workers.agent writes it
    except OSError as error:
        what = "no agent of it has run here with this BERTH_DATA"
        raise Failed(f"It is not known how to reach {name}: {what}. {trouble}") from error


def _see(sight: Sight, driver: LxdDriver) -> None:
    seen = HostSeen()
    try:
        seen = driver.observe()
        sight.want = enforcement.marked(sight.want, seen) if sight.want else None
        sight.gpus = _of_berth(sight, driver.gpus())
    except DriverError as error:
        if sight.want is None:
            raise
        sight.lxd = False
        sight.gpus = tuple(gpu for gpu in sight.want.gpus if gpu.minor >= 0)
        sight.notes.append(f"LXD is away ({error}): which machines run is told by what watches over them.")
        seen = sight.kernel.running()
    sight.scan = sight.kernel.scan(seen, frozenset().union(*(gpu.numbers for gpu in sight.gpus)))


def _of_berth(sight: Sight, listed: list[GpuInfo]) -> tuple[GpuInfo, ...]:
    """The GPUs that Berth looks after, as the host lists them; all of them where the database cannot say."""
    if sight.want is None:
        return tuple(listed)
    stored = {gpu.uuid for gpu in sight.want.gpus} - {""}
    here = {gpu.uuid for gpu in listed} - {""}
    if stored and here and not stored & here:  # LXD's socket has the same name on every machine
        raise Failed(f"This machine has none of {sight.host}'s GPUs: run this on {sight.host}.")
    known = {gpu.pci_address for gpu in sight.want.gpus}
    return tuple(gpu for gpu in listed if gpu.pci_address in known)
