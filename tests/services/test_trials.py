"""What a trial of rules says of bookings after they were made: the grid, late fees, no-shows, GPUs that do nothing.

Every number is worked out by hand beside it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from flask import Flask

from app.extensions import db, lab_zone
from app.models import Allocation, AuditEvent, Booking, Gpu, User
from app.services import bookings, changes, noshows, policy, quota
from app.services.claims import Ask
from app.services.idle import past
from app.services.idle.judging import Terms
from app.services.idle.past import Stretch
from app.services.rules import afterwards, classes, trial
from app.services.rules.terms import Rules
from app.services.rules.trial import Past
from app.services.windows import Window
from tests.factories import gpus_of, make_admin, make_booking, make_host, make_user
from tests.services.idling import HOUR, MINUTE, NOW, Lab

ZONE = ZoneInfo("Asia/Shanghai")
Freeze = Callable[[datetime], None]


def asked(start: float, end: float, *, made: float = -1, gpus: int = 2, released: float | None = None) -> Past:
    """Hours after NOW; `released`: when it was given back, which was its end then."""
    ends_at = NOW + (end if released is None else released) * HOUR
    window = Window(NOW + start * HOUR, NOW + end * HOUR)
    given_back = None if released is None else ends_at
    return Past(1, 1, "Li Wei", window, ("A6000",) * gpus, "lab01", NOW + made * HOUR, ends_at, given_back)


def test_a_wider_grid_makes_bookings_longer_and_is_held_against_the_rules_so() -> None:
    """On a grid of two hours 1:00 to 4:30 becomes 0:00 to 6:00: 2.5 hours more, of two GPUs 5."""
    rules = Rules(grid_minutes=120)
    result = trial.replay([asked(1, 4.5)], rules, NOW - 2 * HOUR, ZONE, slot=900)
    assert (result.longer, result.added, result.would_pay) == (1, 5 * 3600, 12 * 3600)
    refused = trial.replay([asked(1, 4.5)], Rules(grid_minutes=120, max_hours=5), NOW - 2 * HOUR, ZONE, slot=900)
    assert refused.by_rule == [("max_hours", 1)], "six hours, of which 3.5 were asked for"
    same = trial.replay([asked(1, 4.5)], Rules(), NOW - 2 * HOUR, ZONE, slot=900)
    assert (same.longer, same.added) == (0, 0)


def test_what_began_at_once_still_does_and_what_was_given_back_ended_when_it_did() -> None:
    at_once = trial.on_grid(asked(-0.5, 1, made=-0.5), 7200)
    assert at_once.window == Window(NOW - 0.5 * HOUR, NOW + 2 * HOUR)
    given_back = trial.on_grid(asked(1, 5, released=3), 7200)
    assert (given_back.window.ends_at, given_back.ends_at) == (NOW + 6 * HOUR, NOW + 3 * HOUR)
    soon = trial.on_grid(asked(1, 2, made=0.75), 7200)
    assert soon.window.starts_at == NOW + 0.75 * HOUR, "never before it was made"


@pytest.fixture
def boss(app: Flask, freeze: Freeze) -> User:
    freeze(NOW)
    return make_admin("boss")


@pytest.fixture
def owner(boss: User) -> User:
    return make_user("liwei", hours=1000)


@pytest.fixture
def gpus(boss: User) -> list[Gpu]:
    return gpus_of(make_host("lab01"))


def book(owner: User, gpus: list[Gpu], start: float, end: float) -> Booking:
    ask = Ask(NOW + end * HOUR, NOW + start * HOUR, gpu_ids=tuple(gpu.id for gpu in gpus))
    return bookings.create(owner, ask, 900)


def looked_at(booking: Booking, **values: object) -> None:
    for allocation in db.session.scalars(sa.select(Allocation).where(Allocation.booking_id == booking.id)):
        for name, value in values.items():
            setattr(allocation, name, value)
    db.session.flush()


def test_late_fees_are_of_what_owners_gave_back_themselves(
    owner: User, boss: User, gpus: list[Gpu], freeze: Freeze
) -> None:
    cancelled = book(owner, gpus[:2], 2, 10)
    by_admin = book(owner, gpus[2:3], 2, 10)
    ended = book(owner, gpus[3:4], 0, 10)
    far = book(owner, gpus[:1], 48, 50)
    looked_at(ended, attached_at=NOW)
    freeze(NOW + HOUR)
    changes.cancel(owner, cancelled.id)  # of 2:00 to 7:00, two GPUs: 10 hours
    changes.cancel(boss, by_admin.id)
    changes.end_now(owner, ended.id)  # of 1:00 to 7:00: 6 hours
    changes.cancel(owner, far.id)
    ids = [one.id for one in (cancelled, by_admin, ended, far)]
    found = afterwards.late(ids, Rules(late_hours=6, late_percent=25), lab_zone())
    assert (found.seconds, found.bookings, found.did) == (4 * 3600, 2, 0), "a quarter of 16 GPU-hours"
    weighted = Rules(late_hours=6, late_percent=25, weights={gpus[0].model: 200})
    assert afterwards.late(ids, weighted, lab_zone()).seconds == 8 * 3600
    assert afterwards.late(ids, Rules(), lab_zone()) == afterwards.Late()


def test_shortening_counts_from_when_it_was_done_and_what_was_charged_is_told(owner: User, gpus: list[Gpu]) -> None:
    booking = make_booking(owner, gpus[:1], NOW + HOUR, NOW + 2 * HOUR)
    times = {"before": (NOW + 9 * HOUR).isoformat(), "ends_at": booking.ends_at.isoformat()}
    done = {"actor": owner.username, "action": "booking.moved", "target": f"booking:{booking.id}"}
    db.session.add(AuditEvent(created_at=NOW, details=times, **done))
    db.session.add(AuditEvent(created_at=NOW, details=times, **{**done, "actor": "boss"}))
    quota.charge(booking, 3600, key=f"fee:{booking.id}:2", actor=owner.username)
    found = afterwards.late([booking.id], Rules(late_hours=8, late_percent=100), lab_zone())
    assert (found.seconds, found.bookings, found.did) == (6 * 3600, 1, 3600), "of 2:00 to 8:00, all"


def test_nobody_would_have_paid_for_what_berth_did_not_give(owner: User, gpus: list[Gpu], freeze: Freeze) -> None:
    booking = book(owner, gpus[:1], 0, 10)
    looked_at(booking, trouble="quarantined")
    freeze(NOW + HOUR)
    changes.end_now(owner, booking.id)
    assert afterwards.late([booking.id], Rules(late_hours=6, late_percent=50), lab_zone()).seconds == 0


def test_no_shows_are_those_whose_machine_came_later_than_the_rule_waits(owner: User, gpus: list[Gpu]) -> None:
    late = make_booking(owner, gpus[:2], NOW, NOW + 8 * HOUR)
    in_time = make_booking(owner, gpus[2:3], NOW, NOW + 8 * HOUR)
    never = make_booking(owner, gpus[3:4], NOW, NOW + 4 * HOUR)
    ours = make_booking(owner, gpus[3:4], NOW + 5 * HOUR, NOW + 6 * HOUR)
    ready = {"ready_at": NOW + MINUTE / 2}
    looked_at(late, attached_at=NOW + 45 * MINUTE, **ready)
    looked_at(in_time, attached_at=NOW + 20 * MINUTE, **ready)
    looked_at(never, trouble="stopped", **ready)
    looked_at(ours, trouble="unreachable")
    ids = [late.id, in_time.id, never.id, ours.id]
    found = afterwards.no_shows(ids, Rules(noshow_minutes=30))
    assert (found.count, found.seconds) == (2, int((2 * 7.5 + 3.5) * 3600)), "two GPUs from 0:30 to 8:00, one to 4:00"
    assert (found.did, found.unknown) == (0, 0)
    assert afterwards.no_shows(ids, Rules(noshow_minutes=60)).count == 1
    assert afterwards.no_shows(ids, Rules()) == afterwards.Ended()


def test_of_what_did_end_as_a_no_show_nobody_knows_what_more_patience_would_have_brought(
    owner: User, boss: User, gpus: list[Gpu], freeze: Freeze
) -> None:
    classes.change(boss, classes.of_account(owner.account_id).id, {"noshow_minutes": 30})
    booking = book(owner, gpus[:2], 0, 4)
    looked_at(booking, trouble="no_machine", ready_at=NOW)
    freeze(NOW + 30 * MINUTE)
    assert noshows.end_next(booking.host) == booking.id
    sooner = afterwards.no_shows([booking.id], Rules(noshow_minutes=15))
    assert (sooner.count, sooner.seconds, sooner.did, sooner.unknown) == (1, int(2 * 3.75 * 3600), 1, 0)
    later = afterwards.no_shows([booking.id], Rules(noshow_minutes=45))
    assert (later.count, later.did, later.unknown) == (0, 1, 1)


def stretch(start: int, minutes: int, *, busy: bool = False, held: bool = False, extended: bool = False) -> Stretch:
    return Stretch(NOW + start * MINUTE, NOW + (start + minutes - 1) * MINUTE, minutes, busy, held, extended)


@pytest.mark.parametrize(
    ("stretches", "minute"),
    [
        ([stretch(0, 10, busy=True), stretch(10, 200)], 10 + 60 + 15),
        ([stretch(0, 10, busy=True), stretch(10, 74), stretch(84, 1, busy=True)], None),
        ([stretch(0, 10, busy=True), stretch(10, 200, held=True)], 10 + 120 + 15),
        ([stretch(0, 10, busy=True), stretch(10, 30, held=True), stretch(40, 100)], 40 + 60 + 15),
        ([stretch(0, 10, busy=True), stretch(10, 100, held=True), stretch(110, 74)], 10 + 120 + 15),
        ([stretch(0, 10, busy=True), stretch(10, 70), stretch(86, 76)], 86 + 75),  # a hole of six minutes
        ([stretch(0, 10, busy=True), stretch(10, 70), stretch(80, 76, extended=True)], 80 + 75),
        ([stretch(2, 50)], 2 + 30 + 15),  # nobody came
        ([stretch(20, 80)], 20 + 60 + 15),  # nobody knows
    ],
)
def test_when_it_would_have_been_given_back(stretches: list[Stretch], minute: int | None) -> None:
    found = past.due(stretches, NOW, Terms(60, 120, 30), 15)
    assert found == (None if minute is None else NOW + minute * MINUTE)


@pytest.fixture
def lab(app: Flask, freeze: Freeze) -> Lab:
    return Lab(freeze)


def test_another_idle_time_is_held_against_the_minutes_that_were_measured(lab: Lab, freeze: Freeze) -> None:
    """Busy until 1:00 on one of two GPUs, then nothing until 2:30, then busy to its end at 8:00."""
    lab.measure(0, 60, gpus=[0], busy=90)
    lab.measure(0, 60, gpus=[1])
    lab.measure(60, 150)
    lab.measure(150, 480, busy=90)
    freeze(NOW + 9 * HOUR)
    other = make_booking(lab.owner, gpus_of(make_host("lab09")), NOW, NOW + HOUR)
    ids = [lab.booking.id, other.id]
    assert past.look(ids, Rules(idle_minutes=60)).unmeasured == 0, "it never had its GPUs"
    other.allocations[0].attached_at = NOW
    grace = policy.current().idle_grace
    found = past.look(ids, Rules(idle_minutes=60))
    assert grace == 15
    assert (found.ended.count, found.ended.seconds) == (1, 2 * (480 - 60 - 75) * 60)
    assert (found.ended.did, found.unmeasured) == (0, 1)
    assert past.look(ids, Rules(idle_minutes=76)).ended == afterwards.Ended(), "91 minutes are too many"


def test_of_what_was_given_back_nobody_knows_what_would_have_come(lab: Lab, freeze: Freeze) -> None:
    lab.measure(0, 100)
    lab.look(61)
    lab.tell(mail="up")
    assert [booking.id for booking in lab.look(77)] == [lab.booking.id]
    ids = [lab.booking.id]
    same = past.look(ids, Rules(idle_minutes=60)).ended
    assert (same.count, same.did, same.unknown, same.seconds) == (1, 1, 0, 2 * (480 - 75) * 60)
    more = past.look(ids, Rules(idle_minutes=90)).ended
    assert (more.count, more.did, more.unknown) == (0, 1, 1)
    assert lab.booking.ends_at < NOW + timedelta(hours=2)
