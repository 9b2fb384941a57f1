"""What Berth takes back for want of use: when it may, what that costs, and that its owner is told before and after."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import joinedload

from app import clock, serving
from app.extensions import db, lab_zone
from app.models import Allocation, Booking, Charge, Idling, LedgerEntry, Notice, Reclaim, User, Wait
from app.services import changes, news, noshows, notice_words, policy, quota, recording
from app.services.claims import Ask
from app.services.idle import keeping, past
from app.services.rules import classes, noshow
from app.services.waits import joining
from app.services.waits.joining import Wanted
from app.web import idle_words
from tests.factories import gpus_of, make_admin, make_booking, make_host, make_user
from tests.services.idling import HOUR, MINUTE, NOW, Lab

Freeze = Callable[[datetime], None]


@pytest.fixture
def lab(app: object, freeze: Freeze) -> Lab:
    return Lab(freeze)


def rule(**values: int) -> None:
    classes.change(make_admin(), classes.default().id, values)


def texts(user: User) -> list[str]:
    """What its owner is told, first things first."""
    news.collect(mail=True)
    found = db.session.scalars(sa.select(Notice).options(joinedload(Notice.user)).order_by(Notice.id))
    return [notice_words.message(user, [notice], "https://b.example", lab_zone()).text for notice in found]


def charged() -> int:
    """What was taken for giving back late, in GPU-seconds."""
    query = sa.select(sa.func.sum(LedgerEntry.amount)).where(LedgerEntry.key.startswith("fee:"))
    return -(db.session.scalar(query) or 0)


def stopped(lab: Lab) -> None:
    lab.allocations(attached_at=None, ready_at=NOW, trouble="stopped", trouble_at=NOW)


def test_who_keeps_it_is_no_no_show_meanwhile(lab: Lab) -> None:
    rule(noshow_minutes=90)
    stopped(lab)
    lab.measure(0, 62, own=False)
    lab.look(61.5)
    until = keeping.keep(lab.owner, lab.booking.id)
    lab.freeze(NOW + 91 * MINUTE)
    db.session.expire_all()
    assert noshow.ends_at(lab.booking, clock.now()) == until > clock.now()
    assert noshows.end_next(lab.host) is None
    lab.freeze(until)
    assert noshows.end_next(lab.host) == lab.booking.id


@pytest.mark.parametrize("charge", [Charge.RECLAIMED, Charge.RESERVED])
def test_what_the_waiting_list_gave_costs_nothing_while_one_may_say_no(
    app: object, freeze: Freeze, charge: Charge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.queue.wake", lambda *_: None)
    freeze(NOW)
    host = make_host("lab03", gpus=1)
    policy.current().charge = charge
    rule(noshow_minutes=15, late_hours=24, late_percent=100)
    other = make_booking(make_user(hours=1000), gpus_of(host), NOW - HOUR, NOW + 100 * HOUR)
    student = make_user("student", hours=100)
    joining.join(student, Wanted(Ask(ends_at=NOW + 12 * HOUR, count=1), 8 * 3600, by_itself=True), 900)
    changes.end_now(db.session.get_one(User, other.user_id), other.id)
    (made,) = serving.tend()
    values = {"trouble": "stopped", "trouble_at": made.starts_at, "ready_at": made.starts_at}
    db.session.execute(sa.update(Allocation).where(Allocation.booking_id == made.id).values(values))
    freeze(NOW + 16 * MINUTE)
    assert clock.now() < db.session.scalars(sa.select(Wait.decide_by)).one()
    db.session.expire_all()
    assert noshows.end_next(host) == made.id
    freeze(NOW + 20 * MINUTE)
    recording.settle_ended(host)
    assert 0 < quota.charged_for(made.id) <= 16 * 60 + 5


@pytest.mark.parametrize(("seen", "trouble", "free"), [(170, "", True), (179, "", False), (179, "no answer", True)])
def test_what_a_host_that_is_away_keeps_from_one_costs_no_late_fee(
    lab: Lab, seen: int, trouble: str, *, free: bool
) -> None:
    rule(late_hours=24, late_percent=50)
    later = make_booking(lab.owner, gpus_of(lab.host), NOW + 9 * HOUR, NOW + 10 * HOUR)
    lab.host.seen_at, lab.host.trouble = NOW + seen * MINUTE, trouble
    lab.freeze(NOW + 3 * HOUR)
    db.session.flush()
    changes.end_now(lab.owner, lab.booking.id)
    assert charged() == (0 if free else 2 * 5 * 3600 // 2)
    before = charged()
    changes.cancel(lab.owner, later.id)
    assert charged() - before == 3600, "what has not begun may be back by then"


def test_a_no_show_is_told_what_it_costs(lab: Lab) -> None:
    policy.current().charge = Charge.RECLAIMED
    rule(noshow_minutes=15, late_hours=24, late_percent=100)
    stopped(lab)
    lab.freeze(NOW + 16 * MINUTE)
    db.session.expire_all()
    assert noshows.end_next(lab.host)
    (text,) = texts(lab.owner)
    assert charged() == 2 * (480 - 16) * 60
    assert "By the lab's rules 15.47 GPU-hours of what was left are charged." in text
    assert "is given back" not in text


def test_who_does_nothing_is_told_before_and_after_what_that_costs(lab: Lab, app: object) -> None:
    rule(late_hours=24, late_percent=50)
    lab.host.seen_at = NOW + 61 * MINUTE
    lab.measure(0, 62)
    lab.look(61)
    (told,) = texts(lab.owner)
    expected = 2 * (480 - 76) * 60 / 2 / 3600
    assert f"By the lab's rules {expected:.2f} GPU-hours of it are charged then." in told
    booking = db.session.get_one(Booking, lab.booking.id)
    warned = idle_words.warned(booking, clock.now())
    assert warned
    assert f"{expected:.2f} GPU-hours of it are charged then." in warned.text
    lab.tell(mail="up")
    lab.measure(62, 77)
    lab.host.seen_at = NOW + 76 * MINUTE
    (ended,) = lab.look(76)
    assert f"By the lab's rules {expected:.2f} GPU-hours of what was left are charged." in texts(lab.owner)[-1]
    assert charged() == expected * 3600
    assert ended.id == booking.id


def test_a_trial_leaves_alone_what_was_kept(lab: Lab) -> None:
    lab.measure(0, 62)
    lab.look(61.5)
    keeping.keep(lab.owner, lab.booking.id)
    policy.current().reclaim = Reclaim.TRIAL
    lab.measure(62, 100)
    for minute in (63, 79):
        lab.look(minute)
    assert lab.outcomes() == ["kept"]


def test_rules_that_are_tried_know_that_a_rest_was_asked_for_before_it_began(lab: Lab) -> None:
    first = make_booking(lab.owner, gpus_of(lab.host), NOW - 2 * HOUR, NOW)
    lab.booking.rest_of_id, lab.booking.extended_at = first.id, NOW - HOUR
    rule(noshow_minutes=15)
    db.session.flush()
    lab.measure(0, 40)
    lab.look(17)
    (told,) = db.session.scalars(sa.select(Idling))
    lab.measure(40, 480)
    lab.freeze(NOW + 9 * HOUR)
    db.session.execute(sa.update(Booking).where(Booking.id == lab.booking.id).values(settled_at=clock.now()))
    tried = past.look([lab.booking.id], classes.rules_of(classes.default()))
    assert tried.ended.seconds == pytest.approx(2 * (NOW + 8 * HOUR - told.due_at).total_seconds(), abs=240)
