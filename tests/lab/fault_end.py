"""The end of a fault run: everything ends and gets time to come right, and then each GPU is had once more."""

from __future__ import annotations

import time
from collections.abc import Callable
from subprocess import TimeoutExpired

from app import clock
from app.drivers.base import DriverError
from app.drivers.lxd import PylxdDriver
from app.extensions import db
from app.models import Allocation, Booking, Gpu, GpuState, Phase
from app.services import accounts, changes, enforcement
from app.services.plan import plan
from tests.lab.fault_hand import Hand
from tests.lab.lab import Lab
from tests.lab.scene import Scene

PATIENCE = 45.0  # seconds for all to come right, on a busy machine
LAST = 4  # seconds of the last bookings


def ended(hand: Hand) -> list[str]:
    """End everything, as people do; then each GPU must be free, be had by one person more, and be free again."""
    hand.finish()
    complaints = _tidied(hand)
    _end_all(hand)
    complaints += _comes(lambda: _not_over(hand), "after all had ended")
    for name in hand.people:
        hand.order(name, do="drop")
    complaints += _comes(lambda: _out_of_service(hand), "after all holders had died")
    return complaints or _once_more(hand)


def _comes(missing: Callable[[], list[str]], when: str) -> list[str]:
    """Wait until nothing is missing any more; else what is."""
    deadline = time.monotonic() + PATIENCE
    while found := missing():
        if time.monotonic() > deadline:
            return [f"{text}, {PATIENCE:.0f} s {when}" for text in found]
        time.sleep(0.2)
    return []


def _tidied(hand: Hand) -> list[str]:
    """Take away what root on the host had added, and start the machines."""
    for name in hand.copies:
        hand.host.remove(name)
    for name, device in hand.foreign:
        hand.host.lxc("config", "device", "remove", name, device, check=False)

    def asleep() -> list[str]:
        try:
            while hand.wake_up() != "all run":
                pass
        except (RuntimeError, TimeoutExpired) as error:
            return [f"a machine does not start: {error}"]
        return []

    return _comes(asleep, "at the end") or _restored_tidied(hand)


def _restored_tidied(hand: Hand) -> list[str]:
    """A restored snapshot may have brought a device back that was added by hand."""
    for name in hand.people:
        for gpu in range(len(hand.host.minors)):
            hand.host.lxc("config", "device", "remove", name, f"by-hand-{gpu}", check=False)
    return []


def _end_all(hand: Hand) -> None:
    for name, number, _end in hand.booked:

        def end(name: str = name, number: int = number) -> str:
            user = accounts.get(name)
            booking = db.session.get_one(Booking, number)
            match booking.phase(clock.now()):
                case Phase.UPCOMING:
                    changes.cancel(user, number)
                case Phase.RUNNING:
                    changes.end_now(user, number)
            return "done"

        hand.change(end)


def _not_over(hand: Hand) -> list[str]:
    """What a run's bookings still keep."""

    def read() -> list[str]:
        open_books = db.session.scalars(
            db.select(Booking.id).where(Booking.settled_at.is_(None), Booking.ends_at <= clock.now())
        ).all()
        still = db.session.scalars(
            db.select(Allocation.id).where(Allocation.attached_at.is_not(None), Allocation.detached_at.is_(None))
        ).all()
        return [f"bookings {list(open_books)} are not settled"] * bool(open_books) + [
            f"allocations {list(still)} are not seen to be gone"
        ] * bool(still)

    had = [f"{machine} still has GPU {minor}" for machine, minor in sorted(hand.watch.now())]
    return [*asked(hand.scene, read), *had]


def _out_of_service(hand: Hand) -> list[str]:
    """GPUs that nobody can book though nobody has them: a reason for quarantine that is not true any more."""

    def read() -> list[str]:
        rows = db.session.scalars(db.select(Gpu).where(Gpu.state != GpuState.IN_SERVICE)).all()
        return [f"GPU {gpu.minor} is in {gpu.state}: {gpu.quarantine_reason}" for gpu in rows]

    return asked(hand.scene, read) + _differs(hand.scene, hand.host)


def _differs(scene: Scene, host: Lab) -> list[str]:
    """What should be, held against what LXD and the host's kernel show."""
    try:
        seen = PylxdDriver(str(host.socket)).observe()
    except DriverError as error:
        return [str(error)]

    def read() -> list[str]:
        todo = plan(enforcement.desired(scene.row(host)), seen)
        return [f"to be done: {item}" for item in (*todo.detaches, *todo.attaches, *todo.waits, *todo.foreign)]

    return asked(scene, read)


def _once_more(hand: Hand) -> list[str]:
    """Each GPU is booked once more, by somebody else each, and goes there; and then it is free again."""
    start = int(time.time()) + 1
    pairs = list(zip(hand.people, range(len(hand.host.minors)), strict=False))
    refused = []
    for name, gpu in pairs:
        said = hand.take(name, [gpu], start, start + LAST + PATIENCE)
        refused += [f"GPU {gpu} cannot be booked at the end: {said}"] * (not said.startswith("booking"))
    due = {(name, hand.host.minors[gpu]) for name, gpu in pairs}

    def missing() -> list[str]:
        now = hand.watch.now()
        return [f"{name} has not got GPU {minor}" for name, minor in sorted(due - now)]

    complaints = refused or _comes(missing, "after it was booked at the end")
    complaints += asked(hand.scene, lambda: [] if complaints else _shows_more(hand, due))
    _end_all(hand)
    return complaints + _comes(lambda: _not_over(hand) + _out_of_service(hand), "after the last bookings")


def _shows_more(hand: Hand, due: set[tuple[str, int]]) -> list[str]:
    return [f"{name} has GPU {minor}, which it has not booked" for name, minor in sorted(hand.watch.now() - due)]


def asked(scene: Scene, read: Callable[[], list[str]]) -> list[str]:
    found = scene.ask(read)
    return ["the database is away"] if found is None else found
