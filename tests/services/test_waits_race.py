"""The waiting list with several who free and serve at once, on real commits: the figure of 30 waiters and 200 frees."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import pairwise
from threading import Condition
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask

from app import clock, serving
from app.extensions import db, transaction
from app.models import Account, Allocation, AuditEvent, Booking, User, Wait, WaitState
from app.services import changes
from app.services.claims import Ask
from app.services.waits import joining
from app.services.waits import serving as serving_turns
from app.services.waits.joining import Wanted
from app.services.windows import Window, ceil_to_grid
from tests.factories import gpus_of, make_booking, make_host, make_user

SLOT, FREES, THREADS, GPUS = 900, 200, 4, 3
HOUR = timedelta(hours=1)
POOR = (2, 7)  # of the 30, one for each window: their hours do not suffice


class Crowd:
    """Two windows of three GPUs, all taken; 15 people wait for each. Whoever's booking is freed joins the end of the
    line in the same transaction, so that everybody but the poor can be served all the time."""

    def __init__(self, core: Flask) -> None:
        self.core, self.dice, self.change = core, random.Random(5), Condition()
        start = ceil_to_grid(clock.now(), SLOT) + 5 * HOUR
        self.windows = [Window(start + n * HOUR, start + (n + 1) * HOUR) for n in range(2)]
        self.live: list[int] = []
        self.freed = 0
        with core.app_context(), transaction():
            gpus = gpus_of(make_host("lab03", gpus=GPUS))
            for number in range(30):
                person = make_user(hours=0.5 if number in POOR else 1)
                self.join(person, self.windows[number % 2])
            for window in self.windows:
                holders = [make_booking(make_user(hours=1), [gpu], window.starts_at, window.ends_at) for gpu in gpus]
                self.live += [booking.id for booking in holders]

    def join(self, person: User, window: Window) -> None:
        ask = Ask(starts_at=window.starts_at, ends_at=window.ends_at)
        joining.join(person, Wanted(ask), SLOT)

    def take_one(self) -> int | None:
        with self.change:
            while not self.live and self.freed < FREES:
                self.change.wait(5)
            if self.freed == FREES:
                return None
            self.freed += 1
            return self.live.pop(self.dice.randrange(len(self.live)))

    def work(self) -> None:
        try:
            self._work()
        except BaseException:
            with self.change:  # the others have nothing to wait for
                self.freed = FREES
                self.change.notify_all()
            raise

    def _work(self) -> None:
        with self.core.app_context():
            while (booking_id := self.take_one()) is not None:
                with transaction():
                    booking = db.session.get_one(Booking, booking_id)
                    owner = db.session.get_one(User, booking.user_id)
                    self.join(owner, Window(booking.starts_at, booking.ends_at))
                    changes.cancel(owner, booking_id)
                made = serving.tend()
                with self.change:
                    self.live += [booking.id for booking in made]
                    self.change.notify_all()
                db.session.remove()


def rows(query: Any) -> list[Any]:
    return list(db.session.execute(query).all())


def test_each_free_window_goes_to_exactly_one_in_the_order_of_joining(core: Flask) -> None:
    crowd = Crowd(core)
    began = time.monotonic()
    with ThreadPoolExecutor(THREADS) as pool:
        for one in [pool.submit(crowd.work) for _ in range(THREADS)]:
            one.result(300)
    print(f"200 frees, 30 waiters, {THREADS} at once: {time.monotonic() - began:.1f} s")
    with core.app_context():
        granted = rows(
            sa.select(AuditEvent.target, Wait.id, Wait.starts_at, Wait.user_id)
            .join(Wait, AuditEvent.target == sa.func.concat("wait:", Wait.id))
            .where(AuditEvent.action == "wait.granted")
            .order_by(AuditEvent.id)
        )
        assert len(granted) == len({row.target for row in granted}) == FREES, "each free window to exactly one"
        by_window: dict[Any, list[int]] = defaultdict(list)
        for row in granted:
            by_window[row.starts_at].append(row.id)
        assert len(by_window) == 2
        assert all(one < other for ids in by_window.values() for one, other in pairwise(ids)), "in the order of joining"
        live = rows(sa.select(Allocation.gpu_id, Allocation.starts_at).where(Allocation.released_at.is_(None)))
        assert len(live) == len(set(live)) == GPUS * 2, "nothing lies idle while somebody waits"
        people = rows(
            sa.select(User.id, Account.balance, sa.func.count(Booking.id))
            .join(Account, Account.id == User.account_id)
            .outerjoin(Booking, (Booking.user_id == User.id) & Booking.cancelled_at.is_(None))
            .group_by(User.id, Account.balance)
        )
        assert all(balance in {3600 - 3600 * count, 1800} and balance >= 0 for _id, balance, count in people)
        waiting = rows(sa.select(Wait.user_id).where(Wait.state == WaitState.WAITING))
        poor = {person for person, balance, _count in people if balance == 1800}
        assert len(poor) == len(POOR)
        assert poor <= {row.user_id for row in waiting}, "passed over, the place kept"
        assert poor.isdisjoint(row.user_id for row in granted)


def test_what_frees_while_the_line_is_gone_through_is_the_firsts(
    core: Flask, aside: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One who comes later in the same turn does not see more than the first did."""
    start = ceil_to_grid(clock.now(), SLOT) + 5 * HOUR
    with core.app_context(), transaction():
        gpus, owner = gpus_of(make_host("lab03", gpus=1)), make_user()
        booking = make_booking(owner, gpus, start, start + HOUR)
        first, second = make_user(), make_user()
        for person in (first, second):
            joining.join(person, Wanted(Ask(starts_at=start, ends_at=start + HOUR)), SLOT)
    places, seen = serving_turns._places, []

    def slowly(wait: Wait, sight: Any, since: Any) -> Any:
        found = list(places(wait, sight, since))
        seen.append(wait.user_id)
        if len(seen) == 1:  # the first has looked, and now it frees
            aside(lambda: changes.cancel(db.session.get_one(User, owner.id), booking.id)).result(10)
        return found

    monkeypatch.setattr(serving_turns, "_places", slowly)
    given = [aside(serving_turns.serve_next, SLOT).result(10) for _ in range(2)]
    assert (given[0], given[1].user_id, seen) == (None, first.id, [first.id, second.id, first.id])
