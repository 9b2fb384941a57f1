"""Berth as a program on the lab's LXD daemons, and people with machines and bookings in its database."""

from __future__ import annotations

import math
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flask import Flask
from sqlalchemy.exc import SQLAlchemyError

from app import clock, queue
from app.drivers.base import DENIED_CALLS
from app.drivers.lxd import PylxdDriver
from app.errors import InvalidInput
from app.extensions import db, transaction
from app.models import Gpu, Host
from app.services import accounts, changes, inventory
from tests.factories import make_booking, make_instance, make_user
from tests.lab.lab import Lab
from tests.runtime.running import Berth, wait_for

LEADS = (2.0, 12.0, 40.0)  # seconds from writing ends down to the end; the more if those are not enough
# Nothing but the container itself: its first process sleeps. It starts in a moment and loads no machine.
AS_BERTH_DOES = ("-c", f"security.syscalls.deny={DENIED_CALLS}")
SLEEPING = ("-c", "raw.lxc=lxc.init.cmd=/usr/bin/sleep infinity")


class Scene:
    """A running Berth that looks after these hosts, by their names."""

    def __init__(self, berth: Berth, *hosts: Lab) -> None:
        self.berth = berth
        self.hosts = {host.name: host for host in hosts}
        self.app: Flask = berth.app()
        self.machines: list[tuple[Lab, str]] = []
        with self.app.app_context():
            for host in hosts[1:]:
                with transaction():
                    inventory.add_host("test", host.name, str(host.socket), PylxdDriver(str(host.socket)))
        wait_for(lambda: len(berth.pids("workers agent")) == len(hosts), 60, "an agent for each host")

    def people(self, host: Lab, number: int, options: tuple[str, ...] = SLEEPING) -> list[str]:
        """So many people with a machine each on that host; username and machine have the same name."""
        names = [host.unique() for _ in range(number)]
        self.machines += [(host, name) for name in names]
        for name in names:  # one by one: of several at once LXD sometimes fails to start one
            host.launch(name, *AS_BERTH_DOES, *options, owner=name)
        with self.app.app_context(), transaction():
            row = self.row(host)
            for name in names:
                make_instance(make_user(name), row, name, image="base")
        return names

    def book(self, name: str, host: Lab, gpu: int, start: float, end: float) -> int:
        """A booking of the host's GPU of that index between two moments (as `time.time`); its number."""
        with self.app.app_context(), transaction():
            found = Gpu.host_id == self.row(host).id, Gpu.minor == host.minors[gpu]
            card = db.session.scalars(db.select(Gpu).where(*found)).one()
            moments = (datetime.fromtimestamp(moment, UTC) for moment in (start, end))
            return make_booking(accounts.get(name), [card], *moments).id

    def end(self, bookings: Sequence[tuple[str, int]], leads: Sequence[float]) -> int:
        """Have these, by who booked them, end at one second, which is returned: so many seconds from now, the more if
        the first of `leads` are not enough to write all ends down."""
        due = next((due for lead in leads if (due := self._write_ends(bookings, lead)) > time.time()), 0)
        assert due, "the ends were written down too late"
        return due

    def _write_ends(self, bookings: Sequence[tuple[str, int]], lead: float) -> int:
        """The second that is written down as their end; 0 if it is past before all have it."""
        try:
            with self.app.app_context(), transaction():
                due = second_from_now(lead)
                for name, booking in bookings:
                    changes.move_end(accounts.get(name), booking, datetime.fromtimestamp(due, UTC), 1)
                if time.time() > due - 0.2:
                    raise InvalidInput("too late", "none is moved then")  # noqa: TRY301
        except InvalidInput:
            return 0
        return due

    def wake(self, host: Lab) -> None:
        """As the portal does after a change."""
        with self.app.app_context():
            queue.wake(self.row(host).name)

    def row(self, host: Lab) -> Host:
        """The host as Berth knows it."""
        return db.session.scalars(db.select(Host).where(Host.endpoint == str(host.socket))).one()

    def ask(self, query: Callable[[], Any]) -> Any:
        """What the database answers; nothing while it is away."""
        with self.app.app_context():
            try:
                return query()
            except SQLAlchemyError:
                db.session.remove()
                db.engine.dispose()
                return None

    def clean(self) -> None:
        """Remove the machines."""
        for host, name in self.machines:
            host.remove(name)
        with self.app.app_context():
            db.engine.dispose()


def second_from_now(seconds: float) -> int:
    """A whole second, at least so many seconds from now."""
    return math.ceil(clock.now().timestamp() + seconds)


@contextmanager
def scene(*hosts: Lab, **more: str) -> Iterator[Scene]:
    """A Berth on these hosts, with `more` in its environment; gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="berth-scene-"))
    folder.chmod(0o755)
    berth = Berth(folder / "var", BERTH_LXD=str(hosts[0].socket), **more)
    try:
        set_up = Scene(berth.ready(), *hosts)
        try:
            yield set_up
        finally:
            set_up.clean()
    finally:
        if berth.process.poll() is None:
            berth.stop()
        berth.kill()
        shutil.rmtree(folder, ignore_errors=True)
