"""Classes in the database: who is of which, that bookings are held against them, prices, fees, and trials."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from flask import Flask

from app import clock
from app.drivers.base import HostSeen, InstanceSeen
from app.errors import Conflict, InvalidInput, RuleRefused
from app.extensions import db, lab_zone
from app.models import AccountClass, Booking, Gpu, LedgerEntry, Phase, User
from app.services import (
    audit,
    bookings,
    changes,
    enforcement,
    news,
    noshows,
    notice_words,
    notices,
    quota,
    recording,
    refusals,
    room,
    statement,
)
from app.services.claims import Ask
from app.services.rules import classes, fees, noshow, tariff, trial
from tests.factories import (
    attach,
    gpus_of,
    make_admin,
    make_booking,
    make_gpu,
    make_host,
    make_instance,
    make_user,
)

NOW = datetime(2026, 11, 24, 4, tzinfo=UTC)  # Tuesday, noon in Shanghai, the lab's zone
HOUR = timedelta(hours=1)
SLOT = 900

pytestmark = pytest.mark.usefixtures("app")
Freeze = Callable[[datetime], None]


@pytest.fixture(autouse=True)
def _at(app: Flask, freeze: Freeze) -> None:
    freeze(NOW)


@pytest.fixture
def boss() -> User:
    return make_admin("boss")


@pytest.fixture
def gpus() -> list[Gpu]:
    return gpus_of(make_host("lab01"))


@pytest.fixture
def student(boss: User) -> User:
    person = make_user("student")
    assert person.account is not None
    classes.assign(boss, person.account, classes.create(boss, "Student").id)
    return person


def class_of(person: User) -> AccountClass:
    return classes.of_account(person.account_id)


def set_rules(boss: User, person: User, **values: Any) -> None:
    classes.change(boss, class_of(person).id, values)


def ask(gpus: list[Gpu], start: float, hours: float, **values: Any) -> Ask:
    begin = NOW + start * HOUR
    return Ask(starts_at=begin, ends_at=begin + hours * HOUR, gpu_ids=tuple(gpu.id for gpu in gpus), **values)


def ledger(booking: Booking) -> list[tuple[str, int]]:
    query = db.select(LedgerEntry).where(LedgerEntry.booking_id == booking.id).order_by(LedgerEntry.id)
    return [(entry.kind, entry.amount) for entry in db.session.scalars(query)]


def test_an_account_without_a_class_is_of_the_default_one(student: User, boss: User) -> None:
    other = make_user()
    assert (class_of(other).is_default, class_of(student).name) == (True, "Student")
    counts = {found.name: count for found, count in classes.all_with_counts()}
    assert counts == {"Standard": 2, "Student": 1}
    classes.delete(boss, class_of(student).id)
    assert class_of(student).is_default
    with pytest.raises(Conflict):
        classes.delete(boss, class_of(student).id)


def test_a_class_lies_over_the_labs_rules(student: User, boss: User) -> None:
    set_rules(boss, student, max_hours=5)
    assert (classes.rules_for(student.account_id).max_hours, classes.rules_for(student.account_id).max_gpus) == (5, 8)
    assert classes.rules_for(boss.account_id).max_hours == 72


def test_a_change_is_on_record_and_nobody_overwrites_anothers(student: User, boss: User) -> None:
    found = class_of(student)
    mark = classes.mark(found.rules)
    classes.change(boss, found.id, {"hours_week": 20}, seen=mark)
    with pytest.raises(Conflict):
        classes.change(boss, found.id, {"hours_week": 30}, seen=mark)
    classes.change(boss, found.id, {"hours_week": 20}, seen=classes.mark(found.rules))  # nothing new: no line
    (event,) = [one for one in audit.recent(target=classes.target(found)) if one.action == "class.changed"]
    assert event.details["changed"] == {"hours_week": [None, 20]}


@pytest.mark.parametrize("name", ["", " ", "x" * 65, "two\nlines", "Standard"])
def test_names_that_are_none(boss: User, name: str) -> None:
    with pytest.raises(InvalidInput):
        classes.create(boss, name)


@pytest.mark.parametrize("call", [bookings.propose, bookings.create])
def test_rules_hold_where_one_asks_and_where_one_books(student: User, boss: User, gpus: list[Gpu], call: Any) -> None:
    set_rules(boss, student, hours_day=6)
    bookings.create(student, ask(gpus[:1], 1, 4), SLOT)
    with pytest.raises(RuleRefused, match="6 GPU-hours a day") as refused:
        call(student, ask(gpus[1:2], 1, 3), SLOT)
    assert refused.value.details["left"] == 2 * 3600
    call(boss, ask(gpus[1:2], 1, 3), SLOT)


def test_each_offer_keeps_the_rules(student: User, boss: User, gpus: list[Gpu]) -> None:
    set_rules(boss, student, hours_day=8, gpus_at_once=2, notice_minutes=60, models=["NVIDIA RTX A6000"])
    bookings.create(student, ask(gpus[:1], 8, 2), SLOT)
    kinds = {}
    other = make_gpu(make_host("lab02", gpus=0), model="NVIDIA A100")
    for name, wanted in {
        "hours": ask(gpus[:2], 2, 4), "count": ask(gpus[:3], 2, 1), "soon": ask(gpus[:1], 0, 1),
        "model": ask([other], 2, 1),
    }.items():  # fmt: skip
        error, offers = refusals.offers(student, wanted, SLOT)
        assert isinstance(error, RuleRefused)
        kinds[name] = {offer.kind for offer in offers}
    assert kinds == {
        "hours": {"shorter", "later", "fewer"},
        "count": {"fewer"},
        "soon": {"later"},
        "model": {"elsewhere"},
    }


def test_any_gpu_is_one_that_the_class_may_use(student: User, boss: User) -> None:
    make_host("a-first", model="NVIDIA A100")
    mine = make_host("b-last")
    set_rules(boss, student, hosts=["b-last"])
    wanted = Ask(starts_at=NOW, ends_at=NOW + HOUR)
    assert bookings.propose(boss, wanted, SLOT).gpus[0].host_id != mine.id
    assert bookings.create(student, wanted, SLOT).host_id == mine.id
    with pytest.raises(RuleRefused, match="may not use GPUs of a-first"):
        bookings.create(student, Ask(starts_at=NOW, ends_at=NOW + HOUR, host="a-first"), SLOT)


def test_a_class_may_have_a_coarser_grid(student: User, boss: User, gpus: list[Gpu]) -> None:
    set_rules(boss, student, grid_minutes=120)
    booking = bookings.create(student, ask(gpus[:1], 1.25, 1), SLOT)
    assert (booking.starts_at, booking.ends_at) == (NOW, NOW + 4 * HOUR)


def test_extending_is_held_against_the_rules_and_the_buttons_say_why(
    student: User, boss: User, gpus: list[Gpu]
) -> None:
    set_rules(boss, student, hours_day=4)
    booking = bookings.create(student, ask(gpus[:1], 1, 3), SLOT)
    found = room.after(booking, SLOT)
    assert found is not None
    assert [step.refused == "" for step in found.steps] == [True, False]
    assert "4 GPU-hours a day" in found.reasons[0]
    with pytest.raises(RuleRefused, match="4 GPU-hours a day"):
        changes.move_end(student, booking.id, NOW + 6 * HOUR, SLOT)
    changes.move_end(student, booking.id, NOW + 5 * HOUR, SLOT)
    changes.move_end(student, booking.id, NOW + 2 * HOUR, SLOT)
    bookings.create(student, ask(gpus[:1], 3, 3), SLOT)  # what was given back counts no more


def test_a_booking_keeps_the_price_at_which_it_was_made(
    student: User, boss: User, gpus: list[Gpu], freeze: Freeze
) -> None:
    set_rules(boss, student, weights={"NVIDIA RTX A6000": 150}, peak_percent=200, peak_from=13, peak_to=14)
    booking = bookings.create(student, ask(gpus[:2], 0, 3), SLOT)  # 12:00 to 15:00 by the lab's clock
    assert tariff.cost(booking) == 2 * 1.5 * (1 + 2 + 1) * 3600
    set_rules(boss, student)
    changes.move_end(student, booking.id, NOW + 4 * HOUR, SLOT)
    assert quota.held_for(booking.id) == tariff.cost(booking) == 2 * 1.5 * 5 * 3600
    attach(booking)
    freeze(NOW + 1.5 * HOUR)
    changes.end_now(student, booking.id)
    recording.settle_ended(booking.host)
    assert ledger(booking)[-1] == ("settle", -int(2 * 1.5 * (1 + 2 * 0.5) * 3600))
    assert quota.free(student.account_id or 0) == 360_000 + ledger(booking)[-1][1]


@pytest.mark.parametrize("way", ["cancel", "shorten", "wait and end"])
def test_giving_back_late_costs_the_same_whichever_way(
    student: User, boss: User, gpus: list[Gpu], way: str, freeze: Freeze
) -> None:
    set_rules(boss, student, late_hours=6, late_percent=50)
    booking = bookings.create(student, ask(gpus[:1], 2, 10), SLOT)
    if way == "cancel":
        assert fees.late(booking, booking.starts_at, booking.ends_at, NOW) == 2 * 3600
        changes.cancel(student, booking.id)
        fee = 2.0  # of 12:00+2 to 12:00+6, half
    elif way == "shorten":
        changes.move_end(student, booking.id, NOW + 3 * HOUR, SLOT)
        fee = 1.5
    else:
        freeze(NOW + 2 * HOUR + timedelta(seconds=1))
        changes.end_now(student, booking.id)
        fee = 3.0  # nobody gains by waiting
    charged = [-amount for kind, amount in ledger(booking) if kind == "settle"]
    assert charged == [pytest.approx(fee * 3600, abs=1)]
    assert [line.word for line in statement.of_booking(booking)][-1] == "fee"


def test_who_gives_up_on_what_berth_did_not_give_pays_nothing(
    student: User, boss: User, gpus: list[Gpu], freeze: Freeze
) -> None:
    """The agent is down: no pass has looked at it, so no trouble is on record either."""
    set_rules(boss, student, late_hours=6, late_percent=50)
    booking = bookings.create(student, ask(gpus[:1], 2, 10), SLOT)
    freeze(NOW + 2 * HOUR + fees.PROMPT)
    assert fees.late(booking, clock.now(), booking.ends_at, clock.now()) == 3 * 3600
    freeze(NOW + 2 * HOUR + timedelta(minutes=5))
    changes.end_now(student, booking.id)
    recording.settle_ended(booking.host)
    assert [amount for kind, amount in ledger(booking) if kind == "settle"] == [0]


def test_nobody_pays_for_what_an_admin_does_or_berth_could_not_give(
    student: User, boss: User, gpus: list[Gpu], freeze: Freeze
) -> None:
    set_rules(boss, student, late_hours=6, late_percent=50)
    changes.cancel(boss, bookings.create(student, ask(gpus[:1], 2, 10), SLOT).id)
    booking = bookings.create(student, ask(gpus[:1], 2, 10), SLOT)
    booking.allocations[0].trouble = "quarantined"
    freeze(NOW + 3 * HOUR)
    changes.end_now(student, booking.id)
    assert quota.free(student.account_id or 0) == 360_000 - 3600


def test_a_trial_looks_at_the_accounts_of_its_class(student: User, boss: User, gpus: list[Gpu]) -> None:
    made = {"created_at": NOW - 20 * HOUR}
    make_booking(student, gpus[:2], NOW - 10 * HOUR, NOW - 2 * HOUR, **made)
    make_booking(boss, gpus[2:], NOW - 10 * HOUR, NOW - 2 * HOUR, **made)
    db.session.flush()
    narrow = classes.rules_of(AccountClass(name="x", rules={"max_gpus": 1}))
    result = trial.run(class_of(student), narrow, NOW - 30 * HOUR, NOW, lab_zone())
    assert [(v.past.person, v.past.models) for v in result.verdicts] == [("Student", ("NVIDIA RTX A6000",) * 2)]
    assert result.paid == 2 * 8 * 3600
    assert trial.run(class_of(boss), narrow, NOW - 30 * HOUR, NOW, lab_zone()).by_person == [("Boss", 1)]
    assert not trial.run(class_of(boss), narrow, NOW - 10 * HOUR, NOW, lab_zone()).looked_at


def came(booking: Booking, **values: Any) -> None:
    for allocation in booking.allocations:
        for name, value in values.items():
            setattr(allocation, name, value)
    db.session.flush()


def test_a_booking_whose_owner_did_not_come_ends(student: User, boss: User, gpus: list[Gpu], freeze: Freeze) -> None:
    set_rules(boss, student, noshow_minutes=30, late_hours=1, late_percent=50)
    booking = bookings.create(student, ask(gpus[:1], 0, 4), SLOT)
    came(booking, trouble="no_machine", ready_at=NOW)
    freeze(NOW + timedelta(minutes=29, seconds=59))
    assert noshows.end_next(booking.host) is None
    freeze(NOW + timedelta(minutes=30))
    assert [noshows.end_next(booking.host) for _ in range(2)] == [booking.id, None]
    assert booking.phase(NOW + timedelta(minutes=30)) == Phase.PAST
    recording.settle_ended(booking.host)
    assert -sum(amount for kind, amount in ledger(booking) if kind == "settle") == 30 * 60 + 30 * 60
    assert [
        event.actor for event in audit.recent(target=f"booking:{booking.id}") if event.action == noshows.NO_SHOW
    ] == ["system"]
    news.collect(mail=True)
    told = [notice for notice in notices.latest(student) if notice.details.get("action") == noshows.NO_SHOW]
    text = notice_words.message(student, told, "https://berth.example", ZoneInfo("UTC"))
    assert "since no machine took it: 1 GPU on" in text.title
    assert "By the lab's rules 0.5 GPU-hours of what was left are charged." in text.text


def test_who_got_the_chance_late_has_as_long_to_come(
    student: User, boss: User, gpus: list[Gpu], freeze: Freeze
) -> None:
    """The host was away for the first 40 minutes, of 30 in which they have to come."""
    set_rules(boss, student, noshow_minutes=30)
    booking = bookings.create(student, ask(gpus[:2], 0, 4), SLOT)
    came(booking, trouble="stopped", ready_at=NOW + timedelta(seconds=20))
    booking.allocations[1].ready_at = NOW + timedelta(minutes=40)
    db.session.flush()
    for minutes in (40, 69):
        freeze(NOW + timedelta(minutes=minutes))
        assert noshows.end_next(booking.host) is None
        assert noshow.ends_at(booking, NOW + timedelta(minutes=minutes)) == NOW + timedelta(minutes=70)
    freeze(NOW + timedelta(minutes=70))
    assert noshows.end_next(booking.host) == booking.id


STEP = timedelta(seconds=64)  # between two passes, neither of which is late


def ended(booking: Booking, status: str = "stopped") -> int | None:
    """What a pass ends that finds the owner's machine so."""
    want, look = enforcement.desired(booking.host), HostSeen({"own": InstanceSeen("own", status)})
    recording.record(booking.host, want, look, {})
    recording.looked(booking.host, 1, look, clock.now())
    return noshows.end_next(booking.host)


@pytest.mark.parametrize("told", [True, False], ids=["LXD is away", "the agent is away"])
def test_an_outage_within_their_time_to_come_begins_it_anew(
    student: User, boss: User, gpus: list[Gpu], freeze: Freeze, *, told: bool
) -> None:
    """Nothing that they started in it could take the GPU; what it costs stays as it is."""
    set_rules(boss, student, noshow_minutes=30)
    booking = bookings.create(student, ask(gpus[:1], 0, 4), SLOT)
    make_instance(student, booking.host, "own")
    assert ended(booking) is None
    freeze(NOW + timedelta(minutes=2))
    if told:
        recording.could_not_look(booking.host, enforcement.desired(booking.host), "no route")
    else:
        assert ended(booking) is None
    for number in range(29):
        freeze(NOW + timedelta(minutes=40) + number * STEP)
        assert ended(booking) is None
        assert noshow.due(booking.host) is None, "it stands before no other"
        assert noshow.ends_at(booking, clock.now()) == NOW + timedelta(minutes=70)
    freeze(NOW + timedelta(minutes=70))
    assert ended(booking) == booking.id
    assert fees.given_from(booking.allocations[0]) == NOW


def test_without_an_outage_their_time_to_come_is_not_renewed(
    student: User, boss: User, gpus: list[Gpu], freeze: Freeze
) -> None:
    """Whatever else they do with the machine but let it run."""
    set_rules(boss, student, noshow_minutes=30)
    booking = bookings.create(student, ask(gpus[:1], 0, 4), SLOT)
    make_instance(student, booking.host, "own")
    for number in range(29):
        freeze(NOW + number * STEP)
        assert ended(booking, "frozen" if number > 20 else "stopped") is None
        assert noshow.ends_at(booking, clock.now()) == NOW + timedelta(minutes=30)
    freeze(NOW + timedelta(minutes=30))
    assert ended(booking, "frozen") == booking.id


def test_who_got_another_gpu_later_keeps_no_other_no_show(
    student: User, boss: User, gpus: list[Gpu], freeze: Freeze
) -> None:
    set_rules(boss, student, noshow_minutes=30)
    moved, other = (bookings.create(student, ask(gpus[n : n + 1], 0, 4), SLOT) for n in (0, 1))
    came(moved, trouble="stopped", starts_at=NOW + HOUR / 3, ready_at=NOW + HOUR / 3)
    came(other, trouble="stopped", ready_at=NOW)
    freeze(NOW + HOUR / 2)
    assert [noshows.end_next(other.host) for _ in range(2)] == [other.id, None]
    freeze(NOW + HOUR / 2 + HOUR / 3)
    assert noshows.end_next(other.host) == moved.id


@pytest.mark.parametrize(
    "values",
    [{"trouble": ""}, {"trouble": "unreachable"}, {"trouble": "stopped", "attached_at": NOW}],
    ids=["being attached", "not theirs to mend", "was there and was stopped"],
)
def test_who_came_or_could_not_keeps_the_booking(
    student: User, boss: User, gpus: list[Gpu], freeze: Freeze, values: dict[str, Any]
) -> None:
    set_rules(boss, student, noshow_minutes=30)
    other = bookings.create(boss, ask(gpus[1:2], 0, 4), SLOT)  # of a class without this rule
    booking = bookings.create(student, ask(gpus[:1], 0, 4), SLOT)
    came(other, trouble="no_machine")
    came(booking, **values)
    freeze(NOW + HOUR)
    assert noshows.end_next(booking.host) is None
