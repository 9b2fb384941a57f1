"""A simulated host with people on it, for passes with a real database."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import SimpleNamespace

from app.drivers.base import Node
from app.drivers.fake import FakeLxd
from app.drivers.fake_kernel import FakeKernel
from app.extensions import db
from app.models import Allocation, Booking, Gpu, Host, User
from workers.handover import Hands
from workers.reconciler import PassResult, run_pass

NOW = datetime(2026, 11, 3, 14, 0, tzinfo=UTC)


class House(SimpleNamespace):
    """A host with four simulated GPUs, and Alice's and Bob's machines on it."""

    lxd: FakeLxd
    kernel: FakeKernel
    hands: Hands
    host: Host
    gpus: list[Gpu]
    alice: User
    bob: User

    def run(self) -> PassResult:
        db.session.commit()
        db.session.remove()
        return run_pass(self.host.name, self.lxd, self.hands)

    def inside(self, instance: str) -> set[str]:
        """The PCI addresses whose nodes are in an instance."""
        seen = self.lxd.observe().instances[instance]
        return {device.pci_address for device in seen.devices if device.node == Node.PRESENT}

    def allocation(self, booking: Booking) -> Allocation:
        return db.session.scalars(
            db.select(Allocation).where(Allocation.booking_id == booking.id).execution_options(populate_existing=True)
        ).one()


class Now:
    """A thread that has ended when it starts."""

    def __init__(self, *, target: Callable[..., None], args: tuple[object, ...], **_more: object) -> None:
        self._run = lambda: target(*args)

    def start(self) -> None:
        self._run()

    def is_alive(self) -> bool:
        return False


@contextmanager
def full_disk() -> Iterator[None]:
    """No file of this process can grow."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
