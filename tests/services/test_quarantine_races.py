"""Replacing a GPU while others book and change, on real commits: nobody waits in a circle, nothing is given twice."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from threading import Event
from typing import Any

import sqlalchemy as sa
from flask import Flask

from app import clock
from app.errors import DomainError
from app.extensions import db, transaction
from app.models import Allocation, Gpu, GpuState
from app.services import accounts, bookings, changes
from app.services.claims import Ask
from app.services.quarantine import quarantine, replacement
from tests.factories import gpus_of, make_booking, make_host, make_user
from tests.services.conftest import waits

HOUR = timedelta(hours=1)
SLOT = 1


def held_back(gpu_id: int, allocation_id: int, go: Event | None = None) -> int | None:
    """What a pass does about a GPU that it could not free."""
    quarantine("agent:ws1", db.session.get_one(Gpu, gpu_id), "why")
    if go is not None:
        go.wait(10)
    gpu = replacement(db.session.get_one(Allocation, allocation_id), clock.now())
    return gpu.id if gpu else None


def stuck_booking(core: Flask, gpus: int) -> tuple[list[int], int, int]:
    """A host's GPUs, and a booking that runs on the first of them: the ids of it and of its allocation."""
    now = clock.now().replace(microsecond=0)
    with core.app_context(), transaction():
        host_gpus = gpus_of(make_host("ws1", gpus=gpus))
        booking = make_booking(make_user("alice"), host_gpus[:1], now - HOUR, now + HOUR)
        allocation = db.session.scalars(sa.select(Allocation).where(Allocation.booking_id == booking.id)).one()
        make_user("bob")
        return [gpu.id for gpu in host_gpus], booking.id, allocation.id


def test_who_books_the_last_free_gpu_at_the_same_moment(core: Flask, aside: Callable[..., Any]) -> None:
    (first, second), _booking, allocation_id = stuck_booking(core, 2)
    go = Event()
    moved = aside(held_back, first, allocation_id, go)

    def book() -> int:
        ask = Ask(ends_at=clock.now() + HOUR, gpu_ids=(second,))
        return bookings.create(accounts.get("bob"), ask, SLOT).id

    _until_quarantined_uncommitted(core, first)
    booked = aside(book)
    waits(core)  # for the rows that the pass has locked
    go.set()
    assert moved.result(10) == second
    assert isinstance(booked.exception(10), DomainError)


def test_who_booked_it_first_keeps_it(core: Flask, aside: Callable[..., Any]) -> None:
    (first, second), _booking, allocation_id = stuck_booking(core, 2)
    with core.app_context(), transaction():
        bookings.create(accounts.get("bob"), Ask(ends_at=clock.now() + HOUR, gpu_ids=(second,)), SLOT)
    assert aside(held_back, first, allocation_id).result(10) is None
    with core.app_context():
        assert db.session.get_one(Gpu, first).state == GpuState.QUARANTINE


def test_a_person_who_ends_it_at_the_same_moment(core: Flask, aside: Callable[..., Any]) -> None:
    (first, second), booking_id, allocation_id = stuck_booking(core, 2)
    go = Event()
    moved = aside(held_back, first, allocation_id, go)
    _until_quarantined_uncommitted(core, first)
    ended = aside(changes.end_now, *_alice(core), booking_id)
    waits(core)
    go.set()
    assert moved.result(10) == second
    ended.result(10)
    with core.app_context():
        allocation = db.session.get_one(Allocation, allocation_id)
        assert allocation.gpu_id == second
        assert allocation.ends_at <= clock.now()


def test_two_bookings_whose_gpus_are_held_back_share_no_other(core: Flask, aside: Callable[..., Any]) -> None:
    """Two passes at once, in opposite orders: wasteful, never wrong."""
    ids, _booking, allocation_id = stuck_booking(core, 4)
    now = clock.now().replace(microsecond=0)
    with core.app_context(), transaction():
        other = make_booking(accounts.get("bob"), [db.session.get_one(Gpu, ids[3])], now - HOUR, now + HOUR)
        other_id = db.session.scalars(sa.select(Allocation.id).where(Allocation.booking_id == other.id)).one()

    def both(pairs: list[tuple[int, int]]) -> list[int | None]:
        return [held_back(*pair) for pair in pairs]

    pairs = [(ids[0], allocation_id), (ids[3], other_id)]
    for done in [aside(both, order) for order in (pairs, pairs[::-1])]:
        done.result(10)
    with core.app_context():
        given = {a.gpu_id for a in db.session.scalars(sa.select(Allocation))}
    assert given == {ids[1], ids[2]}


def _alice(core: Flask) -> tuple[Any]:
    with core.app_context():
        return (accounts.get("alice"),)


def _until_quarantined_uncommitted(core: Flask, gpu_id: int) -> None:
    """Until the pass has locked the GPU's row."""
    pause = Event()
    with core.app_context(), db.engine.connect() as connection:
        for _ in range(500):
            query = sa.text(f"SELECT 1 FROM gpus WHERE id = {gpu_id} FOR UPDATE SKIP LOCKED")
            free = connection.scalar(query)
            connection.rollback()
            if free is None:
                return
            pause.wait(0.01)
    raise AssertionError("nobody has locked it")
