"""A booking's GPUs and purpose changed: what it costs, what the rules say, whom it would push away."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from flask import Flask

from app import clock
from app.errors import Conflict, InvalidInput, NotFound, QuotaExceeded, RuleRefused, SlotTaken
from app.extensions import db, transaction
from app.models import Allocation, AuditEvent, Booking, Gpu, GpuState, Host, LedgerEntry, User
from app.services import bookings, changes, edits, quota, recording, resizing
from app.services.claims import Ask
from app.services.edits import Edit, Seen
from app.services.resizing import Size
from app.services.rules import classes, tariff
from app.services.windows import Window
from tests.factories import attach, gpus_of, make_admin, make_booking, make_gpu, make_host, make_user
from tests.services.conftest import NOW, Freeze, waits

HOUR = timedelta(hours=1)
SLOT = 900


@pytest.fixture
def alice(host: Host) -> User:
    return make_user("alice", hours=10)


@pytest.fixture
def booking(host: Host, alice: User) -> Booking:
    """GPU 1 and 2 for two hours from an hour on: four of the ten hours."""
    made = make_booking(alice, gpus_of(host)[1:3], NOW + HOUR, NOW + 3 * HOUR, note="training")
    return bookings.get(alice, made.id)


def minors(booking: Booking) -> list[int]:
    query = db.select(Gpu.minor).join(Allocation, Allocation.gpu_id == Gpu.id)
    return list(db.session.scalars(query.where(Allocation.booking_id == booking.id).order_by(Gpu.minor)))


def free(user: User) -> float:
    return quota.free(user.account_id or 0) / 3600


def in_class(user: User, **rules: Any) -> None:
    admin = make_admin()
    found = classes.create(admin, f"by {admin.username}")
    classes.change(admin, found.id, rules)
    classes.assign(admin, quota.account(user.username), found.id)


def events(action: str) -> list[AuditEvent]:
    return list(db.session.scalars(db.select(AuditEvent).where(AuditEvent.action == action).order_by(AuditEvent.id)))


def test_more_and_fewer_hold_what_they_cost(booking: Booking, alice: User, host: Host, freeze: Freeze) -> None:
    resizing.resize(alice, booking.id, Size(4), SLOT)
    assert (minors(booking), free(alice)) == ([0, 1, 2, 3], 2)
    resizing.resize(alice, booking.id, Size(1), SLOT)
    assert (minors(booking), free(alice)) == ([0], 8)
    resizing.resize(alice, booking.id, Size(1), SLOT)
    first, last = events("booking.resized")
    ids = [gpu.id for gpu in gpus_of(host)]
    assert (first.details["were"], first.details["gpus"]) == (ids[1:3], ids)
    assert last.details["gpus"] == ids[:1]
    freeze(NOW + 3 * HOUR)
    attach(booking)
    recording.settle_ended(host)
    entries = db.session.scalars(db.select(LedgerEntry).where(LedgerEntry.booking_id == booking.id)).all()
    held = sum(entry.amount for entry in entries if entry.kind in {"hold", "release"})
    assert (held, [entry.amount for entry in entries if entry.kind == "settle"]) == (0, [-7200])


def test_an_equal_model_comes_first_and_an_odd_one_goes_first(alice: User, host: Host) -> None:
    odd = make_gpu(host, minor=9, model="NVIDIA H100")
    own = gpus_of(host)
    booking = make_booking(alice, [odd, *own[2:4]], NOW + HOUR, NOW + 2 * HOUR)
    resizing.resize(alice, booking.id, Size(2), SLOT)
    assert minors(booking) == [2, 3]
    for gpu in own[:1]:
        gpu.state = GpuState.MAINTENANCE
    db.session.flush()
    resizing.resize(alice, booking.id, Size(3), SLOT)
    assert minors(booking) == [1, 2, 3]
    resizing.resize(alice, booking.id, Size(4), SLOT)
    assert minors(booking) == [1, 2, 3, 9]


def test_just_those_that_were_shown(booking: Booking, alice: User, host: Host) -> None:
    ids = [gpu.id for gpu in gpus_of(host)]
    resizing.resize(alice, booking.id, Size(3, (ids[1], ids[2], ids[3])), SLOT)
    assert minors(booking) == [1, 2, 3]
    resizing.resize(alice, booking.id, Size(1, (ids[3],)), SLOT)
    assert minors(booking) == [3]
    elsewhere = gpus_of(make_host("lab04"))[0].id
    for wrong in ((ids[3], elsewhere), (ids[3], ids[3]), (ids[0], ids[1], ids[2])):
        with pytest.raises(InvalidInput, match="one host: lab03"):
            resizing.resize(alice, booking.id, Size(2, wrong), SLOT)


def test_what_others_have_is_not_taken(booking: Booking, alice: User, host: Host) -> None:
    bob, own = make_user("bob"), gpus_of(host)
    make_booking(bob, own[:1], NOW + 2 * HOUR, NOW + 4 * HOUR)
    make_booking(bob, own[3:], NOW + 3 * HOUR, NOW + 5 * HOUR)  # from its end on: in nobody's way
    resizing.resize(alice, booking.id, Size(3), SLOT)
    assert minors(booking) == [1, 2, 3]
    with pytest.raises(SlotTaken, match="lab03 does not have 4 GPUs free") as refused:
        resizing.resize(alice, booking.id, Size(4), SLOT)
    assert refused.value.next_free == NOW + 5 * HOUR
    with pytest.raises(SlotTaken, match="GPU 0 on lab03 is taken"):
        resizing.resize(alice, booking.id, Size(4, tuple(gpu.id for gpu in own)), SLOT)
    with pytest.raises(RuleRefused, match="lab03 has 4 GPUs that you may book"):
        resizing.resize(alice, booking.id, Size(5), SLOT)
    assert (minors(booking), free(alice)) == ([1, 2, 3], 4)


def test_as_a_new_one_it_keeps_rules_and_quota(booking: Booking, alice: User, host: Host) -> None:
    in_class(alice, gpus_at_once=3)
    with pytest.raises(RuleRefused, match="at once"):
        resizing.resize(alice, booking.id, Size(4), SLOT)
    resizing.resize(alice, booking.id, Size(3), SLOT)
    quota.grant(quota.account("alice"), -free(alice), actor="test")
    in_class(alice)
    with pytest.raises(QuotaExceeded):
        resizing.resize(alice, booking.id, Size(4), SLOT)
    in_class(alice, notice_minutes=90)
    with pytest.raises(RuleRefused, match="90 minutes before"):
        resizing.resize(alice, booking.id, Size(4), SLOT)
    resizing.resize(alice, booking.id, Size(1), SLOT)
    assert minors(booking) == [0]


def test_late_it_costs_as_much_to_give_back_in_two_steps(booking: Booking, alice: User) -> None:
    in_class(alice, late_hours=2, late_percent=33)
    whole = changes.late_fee(alice, booking, booking.starts_at, booking.ends_at)
    resizing.resize(alice, booking.id, Size(1), SLOT)
    half = quota.charged_for(booking.id)
    assert 0 < half < whole
    changes.cancel(alice, booking.id)
    assert (quota.charged_for(booking.id), quota.held_for(booking.id)) == (whole, 0)


def test_what_it_keeps_stays_at_the_price_at_which_it_was_booked(alice: User, host: Host) -> None:
    in_class(alice, weights={"NVIDIA RTX A6000": 150})
    ask = Ask(NOW + 2 * HOUR, NOW + HOUR, gpu_ids=tuple(gpu.id for gpu in gpus_of(host)[:2]))
    booking = bookings.create(alice, ask, SLOT)
    assert tariff.of(booking).rate == 300
    in_class(alice, weights={"NVIDIA RTX A6000": 200})
    assert tariff.of(resizing.resize(alice, booking.id, Size(3), SLOT)).rate == 500
    assert tariff.of(resizing.resize(alice, booking.id, Size(1), SLOT)).rate == 167
    in_class(alice, weights={"NVIDIA RTX A6000": 0})
    assert tariff.of(resizing.resize(alice, booking.id, Size(2), SLOT)).rate == 167
    assert tariff.of(resizing.resize(alice, booking.id, Size(1), SLOT)).rate == 84
    assert quota.held_for(booking.id) == tariff.cost(booking)


def test_one_that_runs_or_is_over_keeps_its_gpus(booking: Booking, alice: User, freeze: Freeze) -> None:
    for moment, words in ((NOW + HOUR, "keeps its GPUs"), (NOW + 3 * HOUR, "is over")):
        freeze(moment)
        for count in (1, 3):
            with pytest.raises(RuleRefused, match=words):
                resizing.resize(alice, booking.id, Size(count), SLOT)
    freeze(NOW)
    attach(booking)  # by an agent whose clock is ahead
    with pytest.raises(RuleRefused, match="keeps its GPUs"):
        resizing.resize(alice, booking.id, Size(1), SLOT)
    with pytest.raises(InvalidInput, match="whole number"):
        resizing.resize(alice, booking.id, Size(0), SLOT)
    assert len(minors(booking)) == 2


def test_changed_underfoot_it_is_left_alone(booking: Booking, alice: User, host: Host) -> None:
    seen = Seen(Window(NOW + HOUR, NOW + 3 * HOUR), resizing.gpu_ids(booking), "training")
    resizing.resize(alice, booking.id, Size(3), SLOT)
    for edit in (Edit(size=Size(2)), Edit(size=Size(4))):
        with pytest.raises(Conflict, match="other GPUs by now"):
            edits.change(alice, booking.id, edit, SLOT, seen)
    edits.describe(alice, booking.id, "tests")
    with pytest.raises(Conflict, match="purpose has changed"):
        edits.change(alice, booking.id, Edit(note="thesis"), SLOT, seen)
    assert (len(minors(booking)), booking.note) == (3, "tests")


def test_the_purpose_is_its_owners_and_the_admins(booking: Booking, alice: User, freeze: Freeze) -> None:
    freeze(NOW + HOUR)
    edits.describe(alice, booking.id, "  thesis ")
    edits.describe(make_admin("boss"), booking.id, "")
    with pytest.raises(NotFound):
        edits.describe(make_user("bob"), booking.id, "mine")
    for wrong, words in (("x" * 201, "too long"), ("two\nlines", "one line")):
        with pytest.raises(InvalidInput, match=words):
            edits.describe(alice, booking.id, wrong)
    told = [(one.actor, one.details) for one in events("booking.noted")]
    assert told == [("alice", {"note": "thesis", "was": "training"}), ("boss", {"note": "", "was": "thesis"})]
    freeze(NOW + 3 * HOUR)
    with pytest.raises(RuleRefused, match="is over"):
        edits.describe(alice, booking.id, "later")
    assert booking.note == ""


def test_all_at_once_never_costs_more_than_asked(booking: Booking, alice: User) -> None:
    """Ten hours: neither three GPUs for two hours and then one for eight, nor the other way, may go over that."""
    longer = Window(NOW + HOUR, NOW + 9 * HOUR)
    edits.change(alice, booking.id, Edit(longer, Size(1), "all night"), SLOT)
    assert (minors(booking), booking.ends_at, booking.note, free(alice)) == ([1], longer.ends_at, "all night", 2)
    shorter = Window(NOW + HOUR, NOW + 3 * HOUR)
    edits.change(alice, booking.id, Edit(shorter, Size(4)), SLOT)
    assert (len(minors(booking)), free(alice)) == (4, 2)


def test_two_who_want_the_last_one(core: Flask, aside: Callable[..., Any]) -> None:
    """On real commits: one gets it, the other hears of it; nobody waits in a circle."""
    start = clock.now().replace(microsecond=0) + HOUR
    with core.app_context(), transaction():
        host = make_host("ws1", gpus=3)
        ids = {}
        for number, name in enumerate(("alice", "bob")):
            person = make_user(name)
            ids[name] = (person.id, make_booking(person, gpus_of(host)[number : number + 1], start, start + HOUR).id)
        last = gpus_of(host)[2].id

    def grow(name: str) -> int:
        user_id, booking_id = ids[name]
        return len(resizing.resize(db.session.get_one(User, user_id), booking_id, Size(2), 1).allocations)

    with core.app_context(), db.engine.begin() as held:
        held.execute(db.text(f"SELECT 1 FROM gpus WHERE id = {last} FOR UPDATE"))
        both = [aside(grow, name) for name in ids]
        waits(core, 2)
    answers = [one.exception(10) or one.result() for one in both]
    assert sorted(str(type(one)) for one in answers) == sorted([str(int), str(SlotTaken)])
    with core.app_context():
        spans = sorted((one.gpu_id, one.starts_at, one.ends_at) for one in db.session.scalars(db.select(Allocation)))
        assert len(spans) == 3
        assert all(one[0] != other[0] for one, other in pairwise(spans))


def test_by_way_of_the_time_that_it_keeps_no_fee_is_paid_for_what_it_never_had(alice: User, host: Host) -> None:
    """GPU 0 from 10 to 14 becomes GPU 1 and 2 from 12 to 16: two hours of one GPU are given back late, not of two."""
    in_class(alice, late_hours=24, late_percent=100)
    gpus, start = gpus_of(host), NOW + HOUR
    made = make_booking(alice, gpus[:1], start, start + 4 * HOUR)
    make_booking(make_user("bo"), gpus[:1], start + 4 * HOUR, start + 6 * HOUR)
    chosen = Size(2, (gpus[1].id, gpus[2].id))
    edits.change(alice, made.id, Edit(Window(start + 2 * HOUR, start + 6 * HOUR), chosen), SLOT)
    booking = bookings.get(alice, made.id)
    assert (minors(booking), booking.starts_at, booking.ends_at) == ([1, 2], start + 2 * HOUR, start + 6 * HOUR)
    assert free(alice) == 10 - 8 - 2


def test_gpus_that_are_free_at_the_new_time_only_can_be_chosen_for_it(alice: User, host: Host) -> None:
    """GPU 0 is taken at the new time, and the one that was chosen at the old one."""
    gpus, start = gpus_of(host), NOW + HOUR
    made, bo = make_booking(alice, gpus[:1], start, start + 2 * HOUR), make_user("bo")
    make_booking(bo, gpus[:1], start + 2 * HOUR, start + 3 * HOUR)
    make_booking(bo, gpus[1:2], start, start + HOUR)
    edits.change(alice, made.id, Edit(Window(start + HOUR, start + 3 * HOUR), Size(1, (gpus[1].id,))), SLOT)
    booking = bookings.get(alice, made.id)
    assert (minors(booking), booking.starts_at, free(alice)) == ([1], start + HOUR, 8)


def test_an_end_beside_the_grid_stays_when_only_the_purpose_is_changed(alice: User, host: Host) -> None:
    made = make_booking(alice, gpus_of(host)[:1], NOW + HOUR, NOW + HOUR * 2.75)
    in_class(alice, grid_minutes=60)
    window = Window(made.starts_at, made.ends_at)
    edits.change(alice, made.id, Edit(window, Size(1), "other work"), SLOT)
    booking = bookings.get(alice, made.id)
    assert (booking.ends_at, booking.note) == (window.ends_at, "other work")
