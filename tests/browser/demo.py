"""Berth as `make run` starts it, with simulated hosts, and people who have something to look at."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from flask import Flask

from app import clock, queue
from app.drivers.fake import FakeLxd
from app.errors import DomainError
from app.extensions import db, transaction
from app.models import Allocation, Booking, Gpu, GpuNow, Host, Instance, Phase, User, UserState, Wait, WaitState
from app.services import accounts, bookings, changes, inventory, ports, refusals, samples
from app.services.claims import Ask
from app.services.samples import Now
from tests.factories import make_instance
from tests.page import PASSWORD
from tests.runtime.running import Berth, wait_for

SLOT = 900
_numbers = itertools.count(1)


class Demo:
    """A running Berth and what may be done to it behind its pages."""

    def __init__(self, berth: Berth) -> None:
        self.berth = berth
        self.url = f"http://127.0.0.1:{berth.port}"
        self.app: Flask = berth.app()

    def person(
        self, full_name: str = "Li Wei", *, hours: float = 100, machine_on: str = "", admin: bool = False
    ) -> str:
        """Somebody new who may sign in with PASSWORD; with a machine that runs, if on a host. Their username."""
        username = _username(full_name)
        with self.app.app_context(), transaction():
            accounts.add(
                username, PASSWORD, actor="test", zone=self.berth_zone, admin=admin, hours=hours, full_name=full_name,
                email=f"{username}@example.org",
            )  # fmt: skip
        if machine_on:
            self.machine(username, machine_on)
        return username

    def machine(self, username: str, host: str) -> None:
        """A machine of theirs that runs there, named like them."""
        FakeLxd(self.berth.data / "sim" / f"{host}.json").add_instance(username, owner=username)
        with self.app.app_context():
            with transaction():
                place = inventory.host(host)
                ports.reserve(make_instance(self._user(username), place, username, image="base"), place)
            queue.wake(host)

    def has_desktop(self, name: str) -> None:
        """The machine's desktop was seen; its agent has looked already, and writes over nothing any more."""

        def done() -> bool:
            with self.app.app_context(), transaction():
                machine = db.session.scalars(db.select(Instance).where(Instance.name == name)).one()
                seen = "ssh" in machine.health and "desktop" in machine.health
                machine.health = {**machine.health, "desktop": True}
                return seen

        wait_for(done, 60, f"{name} has a desktop")

    def waiting(self, full_name: str) -> str:
        """Somebody who has asked for an account."""
        username = _username(full_name)
        with self.app.app_context(), transaction():
            accounts.register(
                username, PASSWORD, full_name=full_name, email=f"{username}@example.org", reason="Protein folding"
            )
        return username

    def how_many_wait(self) -> int:
        """Who has asked for an account and was not answered."""
        with self.app.app_context():
            return db.session.scalar(db.select(db.func.count(User.id)).where(User.state == UserState.PENDING)) or 0

    def book(
        self, username: str, *, hours: float = 2, count: int = 1, start: datetime | None = None, **more: str
    ) -> int:
        """A booking of theirs, from now if no start is given; its number."""
        begins = start or clock.now()
        with self.app.app_context(), transaction():
            ask = Ask(ends_at=begins + timedelta(hours=hours), starts_at=start, count=count, **more)
            booking = bookings.create(self._user(username), ask, SLOT)
            host, number = booking.host.name, booking.id
        with self.app.app_context():
            queue.wake(host)
        return number

    def refuse(self, username: str, *, hours: float = 4) -> None:
        """Something they asked for and did not get, as the page keeps it."""
        ask = Ask(ends_at=clock.now() + timedelta(hours=hours), count=1, note="over and out")
        with self.app.app_context():
            try:
                with transaction():
                    bookings.create(self._user(username), ask, SLOT)
            except DomainError as error:
                with transaction():
                    refusals.store(self._user(username), ask, error)
            else:
                raise AssertionError("it was not refused")

    def attached(self, booking_id: int) -> None:
        """Wait until all its GPUs are seen in the machine."""

        def done() -> bool:
            with self.app.app_context():
                query = db.select(Allocation).where(Allocation.booking_id == booking_id)
                return all(allocation.attached_at for allocation in db.session.scalars(query))

        wait_for(done, 60, f"booking {booking_id} attached")

    def measured(self, booking_id: int, *, ahead: timedelta = timedelta(0), **values: int) -> int:
        """Its first GPU was just read to be at these; the GPU's number. `ahead`: no other reading takes its place so
        long, until the next `clear`."""
        with self.app.app_context(), transaction():
            found = db.select(Gpu).join(Allocation, Allocation.gpu_id == Gpu.id)
            gpu = db.session.scalars(found.where(Allocation.booking_id == booking_id).order_by(Gpu.id)).first()
            assert gpu is not None
            samples.show(inventory.host_of(gpu.host_id).name, [Now(gpu.pci_address, clock.now() + ahead, values)])
            return gpu.minor

    @contextmanager
    def standstill(self, host: str) -> Iterator[None]:
        """Its agent does nothing meanwhile: what is asked for can be seen to wait, however slow the browser is."""
        agent = self.berth.pids(f"workers agent {host}")[0]
        os.kill(agent, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(agent, signal.SIGCONT)

    def clear(self) -> None:
        """Give back everything that is booked, so that the next test finds all GPUs free."""
        with self.app.app_context(), transaction():
            db.session.execute(db.delete(GpuNow).where(GpuNow.seen_at > clock.now()))
        hosts: set[str] = set()
        over = clock.now()
        with self.app.app_context(), transaction():
            given_up = {"state": WaitState.WITHDRAWN, "closed_at": over}
            db.session.execute(db.update(Wait).where(Wait.state == WaitState.WAITING).values(given_up))
            open_ones = db.select(Booking).where(Booking.ends_at > clock.now(), Booking.cancelled_at.is_(None))
            for booking in db.session.scalars(open_ones).all():
                owner = db.session.get_one(User, booking.user_id)
                upcoming = booking.phase(clock.now()) == Phase.UPCOMING
                (changes.cancel if upcoming else changes.end_now)(owner, booking.id)
                hosts.add(db.session.get_one(Host, booking.host_id).name)
                if not upcoming:
                    over = max(over, booking.ends_at)
        with self.app.app_context():
            for host in hosts:
                queue.wake(host)
        wait_for(lambda: clock.now() >= over, 20, "what had just begun is over: it runs for a second")

    @property
    def berth_zone(self):
        return self.app.extensions["berth"].zone

    def at(self, day: int, hour: int) -> datetime:
        """A wall-clock hour in the lab, so many days from today."""
        today = clock.now().astimezone(self.berth_zone).replace(hour=0, minute=0, second=0, microsecond=0)
        return (today + timedelta(days=day, hours=hour)).astimezone(UTC)

    def _user(self, username: str) -> User:
        return accounts.get(username)


def _username(full_name: str) -> str:
    """A new one that reads like the name."""
    return re.sub("[^a-z]+", "-", full_name.lower())[:20].strip("-") + f"-{next(_numbers)}"


@contextmanager
def data_directory() -> Iterator[Path]:
    """A place for a Berth's state that every login may pass through."""
    folder = Path(tempfile.mkdtemp(prefix="berth-browser-"))
    folder.chmod(0o755)
    try:
        yield folder / "var"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def running(**more: str) -> Iterator[Demo]:
    """A Berth of its own, up; gone afterwards. `more`: its environment."""
    with data_directory() as data:
        berth = Berth(data, **({"BERTH_SLOT": str(SLOT), "BERTH_TICK": "5", "BERTH_TZ": "Asia/Shanghai"} | more))
        try:
            yield Demo(berth.ready())
        finally:
            try:
                if berth.process.poll() is None:
                    berth.stop()
            finally:
                berth.kill()
