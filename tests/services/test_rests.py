"""The rest of what maintenance ended: a booking that nobody asked for, and so one that costs its owner nothing more.

One GPU of alice's until 6:00 is worked on from 4:00: from 4:00 to 6:00 she has another one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from flask import Flask

from app.extensions import db
from app.models import (
    Account,
    AccountClass,
    Allocation,
    Booking,
    Charge,
    Event,
    Gpu,
    Host,
    InstanceStatus,
    LedgerEntry,
    Notice,
    User,
)  # fmt: skip
from app.services import (
    bookings,
    changes,
    charges,
    further,
    maintenance,
    news,
    noshows,
    notice_words,
    notices,
    policy,
    quota,
    recording,
    reminders,
    rescheduling,
    warning_words,
    warnings,
)  # fmt: skip
from app.services.maintenance import Fate
from app.services.reports import absences
from app.services.reports import one as of_one
from app.services.reports.numbers import total
from app.services.reports.pieces import Scope
from app.services.reports.spans import Span
from app.services.rules import check, classes, fees, gate, trial
from app.services.rules.check import Asked, Standing
from app.services.rules.limits import Claim
from app.services.rules.terms import Rules
from app.services.windows import Window
from tests.factories import attach, gpus_of, make_admin, make_booking, make_host, make_instance
from tests.services.conftest import NOW

HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)
WORK = Window(NOW + 4 * HOUR, NOW + 8 * HOUR)
ZONE = ZoneInfo("UTC")
Freeze = Callable[[datetime], None]


def _plan(gpus: list[Gpu]) -> list[Fate]:
    return [change.fate for change in maintenance.plan(gpus, WORK)]


def _do(gpus: list[Gpu]) -> None:
    host = db.session.get_one(Host, gpus[0].host_id)
    agreed = maintenance.fingerprint(maintenance.plan(gpus, WORK))
    maintenance.schedule(make_admin(), host, gpus, WORK, "new fans", agreed)


@pytest.fixture
def first(alice: User, host: Host) -> Booking:
    booking = make_booking(alice, gpus_of(host)[:1], NOW - HOUR, NOW + 6 * HOUR)
    attach(booking)
    _do(gpus_of(host)[:1])
    return booking


@pytest.fixture
def rest(first: Booking, alice: User) -> Booking:
    return next(one for one in bookings.mine(alice) if one.id != first.id)


def _set(booking: Booking, **values: object) -> None:
    """As a pass over its host leaves it."""
    db.session.execute(sa.update(Allocation).where(Allocation.booking_id == booking.id).values(**values))
    db.session.flush()
    db.session.expire_all()


def _rules(alice: User, **rules: Any) -> None:
    """What alice's class asks for."""
    found = db.session.scalars(sa.select(AccountClass).where(AccountClass.is_default)).one()
    found.rules = {**found.rules, **rules}
    db.session.flush()
    assert all(getattr(classes.rules_for(alice.account_id or 0), name) == value for name, value in rules.items())


def _charged(booking: Booking) -> int:
    """All that it cost its owner, in GPU-seconds."""
    query = sa.select(sa.func.coalesce(-sa.func.sum(LedgerEntry.amount), 0))
    return int(db.session.scalar(query.where(LedgerEntry.booking_id == booking.id)) or 0)


def test_it_says_of_which_it_is_the_rest(first: Booking, rest: Booking) -> None:
    assert (rest.rest_of_id, rest.unasked, first.rest_of_id, first.unasked) == (first.id, True, None, False)
    unasked = sa.select(Booking.id).where(Booking.unasked)
    assert list(db.session.scalars(unasked)) == [rest.id]


@pytest.mark.parametrize("status", [InstanceStatus.STOPPED, InstanceStatus.FROZEN, InstanceStatus.MISSING])
def test_it_goes_only_to_a_host_where_the_machine_runs(alice: User, host: Host, status: InstanceStatus) -> None:
    """A machine that came later does not help: the oldest one would be given the GPUs."""
    other = make_host("lab04")
    machine = make_instance(alice, other, "there", status=status)
    make_instance(alice, other, "later")
    running = make_booking(alice, gpus_of(host)[:1], NOW - HOUR, NOW + 6 * HOUR)
    assert _plan(gpus_of(host)) == [Fate.SHORTENED]
    running.starts_at = NOW + HOUR  # one that has not begun may go there: there is time to start the machine
    _set(running, starts_at=NOW + HOUR)
    assert _plan(gpus_of(host)) == [Fate.ELSEWHERE]
    running.starts_at, machine.status = NOW - HOUR, InstanceStatus.RUNNING
    _set(running, starts_at=NOW - HOUR)
    assert _plan(gpus_of(host)) == [Fate.CONTINUED]


def test_giving_it_back_late_costs_nothing_until_its_owner_extends_it(
    alice: User, rest: Booking, freeze: Freeze
) -> None:
    """Half of what is given back within 24 hours: of the hour that is left 1800 s, of the rest nothing."""
    _rules(alice, late_hours=24, late_percent=50)
    start, end = rest.starts_at, rest.ends_at
    assert fees.late(rest, start, end, NOW) == 0
    rest.extended_at = NOW
    assert fees.late(rest, start, end, NOW) == 3600, "two hours at half the price"
    rest.extended_at = None
    attach(rest)
    db.session.expire_all()
    freeze(NOW + 5 * HOUR)
    changes.end_now(alice, rest.id)
    assert _charged(rest) == 3600, "held for the hour that it ran; no 1800 s more"


def test_one_that_has_not_begun_is_cancelled_for_nothing(alice: User, rest: Booking) -> None:
    _rules(alice, late_hours=24, late_percent=50)
    before = quota.free(alice.account_id or 0)
    changes.cancel(alice, rest.id)
    assert (quota.free(alice.account_id or 0) - before, _charged(rest)) == (2 * 3600, 0)


@pytest.mark.parametrize("charge", list(Charge))
def test_nobody_pays_for_a_rest_that_no_machine_took(
    alice: User, rest: Booking, host: Host, freeze: Freeze, charge: Charge
) -> None:
    """Two hours held, none charged, by whatever rule; the first had its five."""
    policy.current().charge = charge
    _set(rest, trouble="stopped", trouble_at=rest.starts_at, ready_at=rest.starts_at)
    rest = bookings.get(alice, rest.id)
    assert charges.of(rest) == charges.Charged(0, "attached:0/7200")
    assert charges.explained(charges.of(rest).note) == (charges.ATTACHED, 0, 7200)
    freeze(NOW + 7 * HOUR)
    recording.settle_ended(host)
    assert _charged(rest) == 0
    assert quota.free(alice.account_id or 0) == (100 - 5) * 3600


def test_one_that_was_used_or_extended_costs_what_any_does(alice: User, rest: Booking) -> None:
    policy.current().charge = Charge.RESERVED
    _set(rest, trouble="stopped", ready_at=rest.starts_at)
    rest = bookings.get(alice, rest.id)
    rest.extended_at = NOW
    assert charges.of(rest).seconds == 7200
    rest.extended_at = None
    attach(rest)
    db.session.expire_all()
    assert charges.of(bookings.get(alice, rest.id)).seconds == 7200


def test_reports_count_one_that_no_machine_took_as_nobodys_waste(rest: Booking, freeze: Freeze) -> None:
    """Two hours that nobody pays for; from its extension on it is its owner's, and so it is once a machine took it."""
    freeze(rest.ends_at + HOUR)

    def parts() -> list[tuple[float, float, float]]:
        db.session.expire_all()
        user = db.session.get_one(User, rest.user_id)
        found = of_one.whole(rest), total(hour.numbers for hour in of_one.by_hour(bookings.get(user, rest.id)))
        return [(numbers.reserved, numbers.not_given, numbers.wasted) for numbers in found]

    _set(rest, trouble="stopped", trouble_at=rest.starts_at, ready_at=rest.starts_at)
    assert parts() == [(7200, 7200, 0)] * 2
    rest.extended_at = NOW
    db.session.flush()
    assert parts() == [(7200, 0, 7200)] * 2
    rest.extended_at = None
    _set(rest, attached_at=rest.starts_at + HOUR)
    assert parts() == [(7200, 0, 3600)] * 2


def test_one_of_two_gpus_that_a_machine_took_is_taken(alice: User, host: Host, rest: Booking, freeze: Freeze) -> None:
    """Then the other one counts as in any booking: as it is charged."""
    other = make_booking(alice, gpus_of(host)[2:4], NOW + 4 * HOUR, NOW + 6 * HOUR)
    other.rest_of_id = rest.rest_of_id
    _set(other, ready_at=other.starts_at)
    freeze(NOW + 7 * HOUR)
    assert (of_one.whole(other).not_given, of_one.whole(other).wasted) == (2 * 7200, 0)
    taken = sa.update(Allocation).where(Allocation.booking_id == other.id, Allocation.gpu_id == gpus_of(host)[2].id)
    db.session.execute(taken.values(attached_at=other.starts_at))
    assert (of_one.whole(other).not_given, of_one.whole(other).wasted) == (0, 7200)


def _not_come(alice: User, booking: Booking, freeze: Freeze) -> None:
    """Nobody came within 30 minutes, where what is reserved is charged."""
    policy.current().charge = Charge.RESERVED
    _rules(alice, noshow_minutes=30, late_hours=24, late_percent=50)
    _set(booking, trouble="stopped", trouble_at=booking.starts_at, ready_at=booking.starts_at)
    freeze(booking.starts_at + HOUR / 2)
    assert noshows.end_next(db.session.get_one(Host, booking.host_id)) == booking.id


def test_what_is_taken_back_unused_of_it_is_not_charged(alice: User, rest: Booking, host: Host, freeze: Freeze) -> None:
    """All two hours come back: 1.5 at once, the half one when its books are closed."""
    _not_come(alice, rest, freeze)
    assert _charged(rest) == 1800
    freeze(NOW + 7 * HOUR)
    recording.settle_ended(host)
    assert _charged(rest) == 0


def test_it_is_told_as_given_back_and_is_no_no_show_of_its_owner(alice: User, rest: Booking, freeze: Freeze) -> None:
    own = make_booking(alice, gpus_of(make_host("lab04"))[:1], rest.starts_at, rest.ends_at)
    _not_come(alice, rest, freeze)
    _set(own, trouble="stopped", trouble_at=own.starts_at, ready_at=own.starts_at)
    assert noshows.end_next(db.session.get_one(Host, own.host_id)) == own.id
    start, end = NOW - 3650 * 24 * HOUR, NOW + 3650 * 24 * HOUR  # what is on record has the database's clock
    span = Span(start, end, ZONE, (), (start, end))
    assert [(user.username, count) for user, count in absences.counted(span, Scope())] == [("alice", 1)]
    assert [one.booking.id for one in absences.newest(span, Scope(), 5)] == [own.id]
    news.collect(mail=True)
    found = db.session.scalars(sa.select(Notice).where(Notice.user_id == alice.id))
    texts = {
        notice.details["booking"]: notice_words.message(alice, [notice], "https://berth.example", ZONE).text
        for notice in found
        if notice.details.get("action") == noshows.NO_SHOW
    }
    assert "What was left of its hours is given back." in texts[rest.id]
    assert "charged" not in texts[rest.id]
    assert "GPU-hours of what was left are charged." in texts[own.id]


def test_it_counts_for_no_rule_of_how_one_books(alice: User, rest: Booking) -> None:
    """One booking ahead, two hours apart: what begins an hour after the rest, at 7:00, is allowed beside it."""
    window = Window(NOW + 7 * HOUR, NOW + 8 * HOUR)
    asked, rules = Asked(window, 1, NOW), Rules(bookings_ahead=1, gap_minutes=120, gpus_at_once=1)
    assert gate.first(alice.account_id or 0, asked, rules) is None
    over = Asked(Window(NOW + 5 * HOUR, NOW + 7 * HOUR), 1, NOW)
    refused = gate.first(alice.account_id or 0, over, rules)
    assert refused is not None
    assert refused.details["rule"] == "gpus_at_once", "it has a GPU all the same"
    rest.extended_at = NOW
    db.session.flush()
    standing = gate.standing_of(alice.account_id or 0, asked, rules)
    broken = [one.details["rule"] for one in check.broken(asked, standing, rules, ZONE)]
    assert broken == ["bookings_ahead", "gap_minutes"]


def test_the_rules_alone() -> None:
    rest = Claim(Window(NOW + 4 * HOUR, NOW + 6 * HOUR), 1, unasked=True)
    asked = Asked(Window(NOW + 6 * HOUR, NOW + 7 * HOUR), 1, NOW)
    rules = Rules(bookings_ahead=1, gap_minutes=15)
    assert list(check.broken(asked, Standing([rest]), rules, ZONE)) == []


def test_a_trial_of_rules_refuses_no_rest_but_holds_it_against_others(
    alice: User, first: Booking, rest: Booking
) -> None:
    """Notice of 20 days: the first and alice's other one would have been refused, not the rest. With one GPU at once,
    what was made after the rest and overlaps it is refused."""
    later = make_booking(alice, gpus_of(make_host("lab05"))[:1], NOW + 5 * HOUR, NOW + 7 * HOUR)
    for number, one in enumerate((first, rest, later)):
        one.created_at = NOW - HOUR + number * SECOND
    db.session.flush()
    account = db.session.get_one(Account, alice.account_id)
    found = db.session.scalars(sa.select(AccountClass).where(AccountClass.is_default)).one()
    assert account.class_id in {None, found.id}

    def refused(rules: Rules) -> trial.Trial:
        return trial.run(found, rules, NOW - 2 * HOUR, NOW + HOUR, ZONE)

    strict = refused(Rules(notice_minutes=20 * 24 * 60))
    assert [one.past.booking_id for one in strict.verdicts] == [first.id, later.id]
    assert (strict.looked_at, strict.paid) == (2, (5 + 2) * 3600)
    alone = refused(Rules(gpus_at_once=1))
    assert [one.past.booking_id for one in alone.verdicts] == [later.id]
    assert [past.booking_id for past in alone.kept] == [first.id]


def test_who_puts_it_at_more_time_has_asked_for_it(alice: User, rest: Booking) -> None:
    rescheduling.put(alice, rest, Window(rest.starts_at + HOUR, rest.ends_at))
    assert rest.unasked, "a part of it is given back"
    rescheduling.put(alice, rest, Window(rest.starts_at, rest.ends_at + HOUR))
    assert not rest.unasked


def test_what_ends_soon_says_where_it_goes_on(alice: User, first: Booking, rest: Booking, freeze: Freeze) -> None:
    freeze(WORK.starts_at - HOUR / 4)
    reminders.of_bookings(mail=True)
    (notice,) = [one for one in notices.latest(alice) if one.event == Event.ENDS_SOON]
    text = notice_words.message(alice, [notice], "https://berth.example", ZONE).text
    assert f"It goes on as booking {rest.id} on GPU 1 of lab03." in text
    assert f"Booking {rest.id}: https://berth.example/bookings/{rest.id}" in text
    assert "cannot be extended" not in text
    assert "nd it now" not in text


def test_the_machine_is_told_so_too_in_both_languages(
    alice: User, first: Booking, rest: Booking, host: Host, freeze: Freeze
) -> None:
    alice.locale = "zh_Hans_CN"
    freeze(WORK.starts_at - HOUR / 12)
    (warning,) = warnings.due(host)
    room = further.by_id(first.id, warning_words.languages(warning))
    text = warning_words.message(warning, None, [], room)[1]
    assert f"It goes on as booking {rest.id} on GPU 1 of lab03." in text
    assert f"它在 lab03 的 GPU 1 上继续，为预约 {rest.id}。" in text
    changes.withdraw("boss", rest)
    room = further.by_id(first.id, warning_words.languages(warning))
    text = warning_words.message(warning, None, [], room)[1]
    assert "It cannot be extended: its GPUs are in maintenance from" in text


def test_one_that_was_shortened_since_does_not_go_on(
    app: Flask, alice: User, first: Booking, rest: Booking, freeze: Freeze
) -> None:
    changes.move_end(alice, first.id, NOW + 2 * HOUR, 900)
    room = further.by_id(first.id, ["en"])
    assert room is not None
    assert room.rest == {}
