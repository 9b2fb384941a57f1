"""A host with machines that tell what they can open, and what Berth says of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.orm import selectinload

from app import clock
from app.extensions import db, transaction
from app.models import AuditEvent, Booking, Gpu
from app.services import accounts, changes
from tests.browser.watch import configured
from tests.lab.clinging import ToldApart, clingers
from tests.lab.fault_watch import FRESH, _looks
from tests.lab.grips import grips
from tests.lab.scene import Scene, second_from_now
from tests.runtime.running import wait_for

SOON = 15.0  # seconds within which LXD's event has had its effect, on a busy machine; the tick is 30 s away
HERE = 40.0  # seconds for a booked GPU to be there, on a busy machine
LONG = 600  # seconds of a booking that is not to end by itself


@dataclass
class Place:
    """A host and its Berth. `options`: of a machine that tells what it can open and obeys."""

    berth: Scene
    host: ToldApart
    logs: Path
    options: tuple[str, ...]

    @property
    def name(self) -> str:
        """What Berth calls the host."""
        return str(self.berth.ask(lambda: self.berth.row(self.host).name))

    def person(self, *more: str) -> str:
        """Somebody with a machine at which Berth has looked since it started."""
        name = self.berth.people(self.host, 1, (*self.options, *more))[0]
        self.looked_at()
        return name

    def looked_at(self) -> None:
        """Wait for a pass that began after this call: the second to end, as one may be under way."""
        for _ in range(2):
            before = self.berth.ask(lambda: self.berth.row(self.host).pass_at)
            self.berth.wake(self.host)
            wait_for(lambda before=before: self.berth.ask(lambda: self.berth.row(self.host).pass_at) != before, HERE)

    def book(self, name: str, gpu: int, seconds: int = LONG) -> int:
        """A booking from now on; returns when its GPU can be opened and that is written down."""
        begin = second_from_now(0)
        number = self.berth.book(name, self.host, gpu, begin, begin + seconds)
        self.berth.wake(self.host)
        wait_for(lambda: self.can_open(name, gpu), HERE, f"{name} can open GPU {gpu}")
        wait_for(lambda: self.audited("gpu.attached", f"booking:{number}"), HERE, "it is written down")
        return number

    def can_open(self, name: str, gpu: int) -> bool:
        """Whether the machine tells that it could open the GPU a moment ago, in its present life."""
        logs = sorted(self.logs.glob(f"{name}.*.log"))
        *lines, (beat, _, _) = (_looks(logs[-1]) if logs else []) or [(0.0, 0.0, frozenset())]
        alive = beat > time.time() - FRESH
        return bool(alive and lines and self.host.minors[gpu] in lines[-1][2])

    def lives(self, name: str, since: float) -> bool:
        """Whether the machine tells anything since then."""
        return any(float(path.name.split(".", 1)[1][:-4]) >= since for path in self.logs.glob(f"{name}.*.log"))

    def has(self, name: str, gpu: int) -> bool:
        """Whether LXD's configuration of the machine names the GPU."""
        return self.host.gpus[gpu].pci_address in configured(self.host, name)

    def unbook(self) -> None:
        """End every booking of the host that runs."""
        with self.berth.app.app_context(), transaction():
            now, here = clock.now(), Booking.host_id == self.berth.row(self.host).id
            query = db.select(Booking).where(here, Booking.starts_at <= now, Booking.ends_at > now)
            for booking in db.session.scalars(query.options(selectinload(Booking.user))):
                changes.end_now(booking.user, booking.id)
        self.berth.wake(self.host)

    def end(self, name: str, number: int) -> None:
        """Give the rest of a booking back, as its owner does."""
        with self.berth.app.app_context(), transaction():
            changes.end_now(accounts.get(name), number)
        self.berth.wake(self.host)

    def taken_away(self, name: str, gpu: int) -> None:
        """Wait for the GPU to be out of the machine, soon, and see that it cannot be opened."""
        wait_for(lambda: not self.has(name, gpu), SOON, f"GPU {gpu} is out of {name}")
        wait_for(lambda: not self.can_open(name, gpu), 2.0, "it cannot be opened")

    def row(self, gpu: int) -> Gpu:
        found = Gpu.host_id == self.berth.row(self.host).id, Gpu.minor == self.host.minors[gpu]
        return db.session.scalars(db.select(Gpu).where(*found)).one()

    def drift(self, name: str) -> list[dict[str, Any]]:
        """What Berth reports of the machine."""
        found = self.berth.ask(lambda: self.berth.row(self.host).observed) or {}
        return [item for item in found.get("drift", []) if item["instance"] == name]

    def reported(self, name: str, kind: str, device: str = "") -> bool:
        return any(item["kind"] == kind and (not device or item["device"] == device) for item in self.drift(name))

    def holders(self, name: str) -> list[dict[str, Any]]:
        """Who in the machine holds GPUs without a booking, as Berth reports it."""
        found = self.berth.ask(lambda: self.berth.row(self.host).observed) or {}
        return [item for item in found.get("intruders", []) if item["instance"] == name]

    def held_by_first(self, name: str) -> bool:
        """Whether the machine's first process has a GPU open."""
        first = json.loads(self.host.lxc("query", f"/1.0/instances/{name}/state"))["pid"]
        numbers = frozenset().union(*(gpu.numbers for gpu in self.host.gpus))
        return any(f"/proc/{first}/" in grip for grip in grips(numbers, [name]))

    def could_ever_open(self, name: str, gpu: int) -> bool:
        """Whether the machine ever told that it could open the GPU."""
        looks = [look for path in self.logs.glob(f"{name}.*.log") for look in _looks(path)]
        assert looks, f"{name} tells nothing"
        return any(self.host.minors[gpu] in found for _, _, found in looks)

    def state(self, gpu: int) -> str:
        return str(self.berth.ask(lambda: self.row(gpu).state))

    def audited(self, action: str, target: str) -> int:
        """How many lines of the log say so."""
        query = db.select(db.func.count()).where(AuditEvent.action == action, AuditEvent.target == target)
        return int(self.berth.ask(lambda: db.session.scalar(query)) or 0)

    def wrote(self, action: str, name: str) -> list[AuditEvent]:
        """What Berth wrote down of processes in the machine."""
        query = db.select(AuditEvent).where(AuditEvent.action == action).order_by(AuditEvent.id)
        found = self.berth.ask(lambda: list(db.session.scalars(query))) or []
        return [event for event in found if event.details.get("instance") == name]

    def awake(self, so: Callable[[], Any]) -> Callable[[], Any]:
        """Asks again and again, and has Berth look each time: no event of LXD's tells what a process does."""

        def asked() -> Any:
            self.berth.wake(self.host)
            time.sleep(0.3)
            return so()

        return asked


@contextmanager
def place(berth: Scene, host: ToldApart) -> Iterator[Place]:
    """The host, its machines obedient."""
    with clingers(host, "obedient") as (logs, options):
        yield Place(berth, host, logs, options)
