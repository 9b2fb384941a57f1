"""GPUs kept free for a while: who moves, who ends earlier, who is cancelled; and that nobody books them meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from flask import Flask
from sqlalchemy.exc import IntegrityError

from app import clock
from app.errors import Conflict, NotFound, SlotTaken
from app.extensions import db, transaction
from app.models import Booking, EntryKind, Event, Gpu, Host, Notice, User
from app.services import bookings, changes, maintenance, news, notice_words, notices, openings, quota, room
from app.services.claims import Ask
from app.services.maintenance import Fate
from app.services.windows import Window
from tests.factories import gpus_of, make_admin, make_booking, make_host, make_instance, make_user
from tests.services.conftest import NOW, waits

HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)
WORK = Window(NOW + 4 * HOUR, NOW + 8 * HOUR)


def _do(gpus: list[Gpu], window: Window = WORK, admin: User | None = None) -> None:
    admin = admin or make_admin()
    host = db.session.get_one(Host, gpus[0].host_id)
    agreed = maintenance.fingerprint(maintenance.plan(gpus, window))
    maintenance.schedule(admin, host, gpus, window, "new fans", agreed)


def _fates(gpus: list[Gpu], window: Window = WORK) -> dict[int, Fate]:
    return {change.booking.id: change.fate for change in maintenance.plan(gpus, window)}


def _gpus_of(booking: Booking) -> list[int]:
    query = sa.text("SELECT gpu_id FROM allocations WHERE booking_id = :n ORDER BY id")
    return list(db.session.scalars(query, {"n": booking.id}))


def test_what_can_move_moves_and_the_rest_ends_or_goes_with_a_refund(alice: User, host: Host) -> None:
    gpus = gpus_of(host)
    before = quota.free(alice.account_id or 0)
    moves = make_booking(alice, gpus[:1], NOW + 5 * HOUR, NOW + 6 * HOUR)
    ends = make_booking(alice, gpus[1:4], NOW + 2 * HOUR, NOW + 5 * HOUR)
    goes = make_booking(alice, gpus[1:3], NOW + 6 * HOUR, NOW + 7 * HOUR)
    aside = make_booking(alice, gpus[:2], NOW + 8 * HOUR, NOW + 9 * HOUR)
    assert _fates(gpus[:3]) == {moves.id: Fate.MOVED, ends.id: Fate.SHORTENED, goes.id: Fate.CANCELLED}
    _do(gpus[:3])
    assert _gpus_of(moves) == [gpus[3].id]
    assert (ends.ends_at, goes.cancelled_at is not None, aside.cancelled_at) == (WORK.starts_at, True, None)
    held = 1 * 1 + 3 * 2 + 2 * 1  # moved, shortened, aside: GPU-hours
    assert quota.free(alice.account_id or 0) == before - held * 3600


def test_what_runs_ends_when_the_work_begins_even_now(alice: User, host: Host) -> None:
    gpus = gpus_of(host)
    running = make_booking(alice, gpus[:2], NOW - HOUR, NOW + 5 * HOUR)
    make_booking(make_user("bob"), gpus[2:], NOW + 4 * HOUR, NOW + 6 * HOUR)  # nothing is free for all of its rest
    assert _fates(gpus[:1], Window(NOW, NOW + HOUR)) == {running.id: Fate.SHORTENED}
    _do(gpus[:1], Window(NOW, NOW + HOUR))
    assert running.ends_at == NOW
    assert len(bookings.mine(alice)) == 1
    (planned,) = maintenance.to_come(host)
    assert planned.starts_at == NOW


def test_the_rest_of_what_runs_goes_on_on_an_equal_gpu_for_the_same_hours(alice: User, host: Host) -> None:
    """Two GPUs until 6:00; one of them is worked on from 4:00: both, one of them another, from 4:00 to 6:00."""
    gpus, machine = gpus_of(host), make_instance(alice, host, "second")
    note = {"note": "thesis", "instance_id": machine.id, "tariff": {"rate": 300}}
    running = make_booking(alice, gpus[:2], NOW - HOUR, NOW + 6 * HOUR, **note)
    changes.hold("test", running, 7 * 3600)  # the factory holds no more than two GPUs cost as they are
    before = quota.free(alice.account_id or 0)
    make_booking(make_user("bob"), gpus[2:3], NOW + 5 * HOUR, NOW + 7 * HOUR)
    assert _fates(gpus[:1]) == {running.id: Fate.CONTINUED}
    _do(gpus[:1])
    rest, first = bookings.mine(alice)
    assert (first.id, first.ends_at) == (running.id, WORK.starts_at)
    assert (rest.starts_at, rest.ends_at, rest.booked_until) == (WORK.starts_at, NOW + 6 * HOUR, NOW + 6 * HOUR)
    assert sorted(_gpus_of(rest)) == sorted([gpus[1].id, gpus[3].id])
    assert (rest.note, rest.instance_id, rest.host_id, rest.tariff) == ("thesis", machine.id, host.id, {"rate": 300})
    assert (quota.held_for(first.id), quota.held_for(rest.id)) == (5 * 3 * 3600, 2 * 3 * 3600)
    assert quota.free(alice.account_id or 0) == before


def test_the_rest_begins_now_where_the_work_does(alice: User, host: Host) -> None:
    gpus = gpus_of(host)
    running = make_booking(alice, gpus[:1], NOW, NOW + 2 * HOUR)
    _do(gpus[:1], Window(NOW, NOW + HOUR))
    rest = next(one for one in bookings.mine(alice) if one.id != running.id)
    assert rest.starts_at == running.ends_at == NOW + HOUR / 3600, "it ran for a second"
    assert _gpus_of(rest) == [gpus[1].id]


def test_the_rest_goes_to_another_host_only_where_the_person_has_a_machine(alice: User, host: Host) -> None:
    other = make_host("lab04")
    gpus, machine = gpus_of(host), make_instance(alice, host)
    running = make_booking(alice, gpus[:2], NOW - HOUR, NOW + 6 * HOUR, instance_id=machine.id)
    assert _fates(gpus) == {running.id: Fate.SHORTENED}
    make_instance(alice, other, "there")
    assert _fates(gpus) == {running.id: Fate.CONTINUED}
    _do(gpus)
    rest = next(one for one in bookings.mine(alice) if one.id != running.id)
    assert (rest.host_id, rest.instance_id) == (other.id, None)
    assert set(_gpus_of(rest)) <= {gpu.id for gpu in gpus_of(other)}


def test_two_rests_are_not_given_the_same_gpu(alice: User, host: Host) -> None:
    gpus = gpus_of(host)
    first = make_booking(alice, gpus[:2], NOW - 2 * HOUR, NOW + 6 * HOUR)
    second = make_booking(make_user("bob"), gpus[2:3], NOW - HOUR, NOW + 6 * HOUR)
    assert _fates(gpus[1:3]) == {first.id: Fate.CONTINUED, second.id: Fate.SHORTENED}
    _do(gpus[1:3])


def test_whoever_owes_hours_gets_no_second_booking_out_of_the_first(alice: User, host: Host) -> None:
    gpus = gpus_of(host)
    running = make_booking(alice, gpus[:1], NOW - HOUR, NOW + 6 * HOUR)
    assert alice.account is not None
    quota.grant(alice.account, -10_000, actor="test")
    assert _fates(gpus[:1]) == {running.id: Fate.SHORTENED}
    _do(gpus[:1])
    assert (running.ends_at, len(bookings.mine(alice))) == (WORK.starts_at, 1)


def test_rests_that_cost_a_second_more_than_comes_back_do_not_break_the_maintenance(alice: User, host: Host) -> None:
    """At half the price, rounded, two parts of odd seconds cost one more than the whole; it is there once."""
    gpus = gpus_of(host)
    start, end = NOW - HOUR - SECOND, NOW + 6 * HOUR + SECOND
    made = [make_booking(alice, [gpu], start, end, tariff={"rate": 50}) for gpu in gpus[:2]]
    left = quota.free(alice.account_id or 0)
    quota.post(alice.account_id or 0, EntryKind.ADJUST, 1 - left, key="all but a second", actor="test")
    _do(gpus[:2])
    assert quota.free(alice.account_id or 0) == 3600, "what came back of the other"
    assert len(bookings.mine(alice)) == 3, "one goes on, the other could not be paid"
    assert {one.ends_at for one in made} == {WORK.starts_at}


def test_its_owner_hears_in_one_message_where_the_rest_is(alice: User, host: Host) -> None:
    stored = notices.chosen(alice)
    notices.choose(alice, {**stored, Event.MADE: ["mail"]})
    gpus = gpus_of(host)
    make_booking(alice, gpus[:1], NOW - HOUR, NOW + 6 * HOUR)
    _do(gpus[:1])
    news.collect(mail=True)
    (notice,) = db.session.scalars(sa.select(Notice).where(Notice.user_id == alice.id))
    rest = bookings.mine(alice)[0]
    text = notice_words.message(alice, [notice], "https://berth.example", ZoneInfo("UTC")).text
    page = f"https://berth.example/bookings/{rest.id}"
    assert f"It goes on until Tue 3 Nov 20:00 on GPU 1 of lab03, as booking {rest.id}: {page}" in text
    assert "Maintenance: new fans" in text


def test_equal_gpus_of_another_host_are_given_where_the_person_has_a_machine(alice: User, host: Host) -> None:
    other, different = make_host("lab04"), make_host("lab05", model="NVIDIA H100")
    for place in (host, different):
        make_instance(alice, place)
    gpus = gpus_of(host)
    booking = make_booking(alice, gpus[:2], NOW + 5 * HOUR, NOW + 6 * HOUR)
    assert _fates(gpus) == {booking.id: Fate.CANCELLED}
    make_instance(alice, other)
    assert _fates(gpus) == {booking.id: Fate.ELSEWHERE}
    _do(gpus)
    assert set(_gpus_of(booking)) <= {gpu.id for gpu in gpus_of(other)}
    assert booking.host_id == other.id


def test_two_bookings_are_not_given_the_same_gpu(alice: User, host: Host) -> None:
    gpus = gpus_of(host)
    first = make_booking(alice, gpus[:1], NOW + 5 * HOUR, NOW + 7 * HOUR)
    second = make_booking(alice, gpus[1:2], NOW + 6 * HOUR, NOW + 8 * HOUR)
    third = make_booking(alice, gpus[2:3], NOW + 6 * HOUR, NOW + 8 * HOUR)
    assert _fates(gpus[:3]) == {first.id: Fate.MOVED, second.id: Fate.CANCELLED, third.id: Fate.CANCELLED}
    _do(gpus[:3])


def test_nobody_books_or_extends_into_it_and_what_is_offered_lies_beside_it(alice: User, host: Host) -> None:
    gpus = gpus_of(host)
    before_it = make_booking(alice, gpus[:1], NOW, NOW + 3 * HOUR)
    _do(gpus)
    with pytest.raises(SlotTaken, match="is in maintenance") as refused:
        bookings.create(alice, Ask(NOW + 6 * HOUR, NOW + 5 * HOUR, gpu_ids=(gpus[0].id,)), 900)
    assert "new fans" in str(refused.value)
    assert refused.value.next_free == WORK.ends_at
    with pytest.raises(SlotTaken) as refused:
        bookings.create(alice, Ask(NOW + 6 * HOUR, NOW + 5 * HOUR, count=1), 900)
    assert refused.value.next_free == WORK.ends_at
    with pytest.raises(SlotTaken, match="is in maintenance"):
        changes.move_end(alice, before_it.id, NOW + 5 * HOUR, 900)
    found = room.after(bookings.get(alice, before_it.id), 900)
    assert found is not None
    assert [bool(step.refused) for step in found.steps] == [False, True]
    assert found.reasons[0].startswith("In maintenance from")
    bookings.create(alice, Ask(WORK.starts_at, NOW + 3 * HOUR, gpu_ids=(gpus[0].id,)), 900)


def test_the_database_itself_keeps_them_apart(alice: User, host: Host) -> None:
    gpus = gpus_of(host)
    _do(gpus[:1])
    with pytest.raises(IntegrityError, match="is in maintenance"):
        make_booking(alice, gpus[:1], NOW + 5 * HOUR, NOW + 6 * HOUR)


def test_it_can_be_lifted_and_then_the_gpus_are_free(alice: User, host: Host) -> None:
    gpus, admin = gpus_of(host), make_admin()
    _do(gpus)
    (planned,) = maintenance.to_come(host)
    maintenance.lift(admin, planned.id)
    with pytest.raises(NotFound):
        maintenance.lift(admin, planned.id)
    assert maintenance.to_come(host) == []
    assert openings.busy(gpus, *(WORK.starts_at, WORK.ends_at)) == {}
    make_booking(alice, gpus[:1], NOW + 5 * HOUR, NOW + 6 * HOUR)


def test_what_was_agreed_is_done_or_nothing(alice: User, host: Host) -> None:
    gpus, admin = gpus_of(host), make_admin()
    agreed = maintenance.fingerprint(maintenance.plan(gpus, WORK))
    booking = make_booking(alice, gpus[:1], NOW + 5 * HOUR, NOW + 6 * HOUR)
    with pytest.raises(Conflict):
        maintenance.schedule(admin, host, gpus, WORK, "", agreed)
    assert booking.cancelled_at is None
    _do(gpus)
    with pytest.raises(Conflict, match="already"):
        _do(gpus[:1])


def test_whoever_is_hit_is_told_why(alice: User, host: Host) -> None:
    gpus = gpus_of(host)
    make_booking(alice, gpus, NOW + 5 * HOUR, NOW + 6 * HOUR)
    _do(gpus)
    news.collect(mail=True)
    (notice,) = db.session.scalars(sa.select(Notice).where(Notice.user_id == alice.id))
    assert (notice.event, notice.details["reason"]) == (Event.MOVED, "Maintenance: new fans")


def test_a_booking_made_at_the_same_moment_and_a_maintenance_do_not_both_win(
    core: Flask, aside: Callable[..., Future[Any]]
) -> None:
    start = clock.now().replace(microsecond=0) + 4 * HOUR
    window = Window(start, start + 4 * HOUR)
    with core.app_context(), transaction():
        host, user, admin = make_host("lab03"), make_user("alice"), make_admin()
        gpus = gpus_of(host)
        agreed = maintenance.fingerprint(maintenance.plan(gpus, window))
    with core.app_context():
        with transaction():
            bookings.create(user, Ask(start + 2 * HOUR, start, gpu_ids=(gpus[0].id,)), 900)
            other = aside(lambda: maintenance.schedule(db.session.merge(admin), host, gpus, window, "", agreed))
            waits(core)
        with pytest.raises(Conflict):
            other.result(10)
