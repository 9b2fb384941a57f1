"""The waiting list: who is served, in which order, and what becomes of an offer."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import event

from app import serving
from app.errors import Conflict, InvalidInput, RuleRefused
from app.extensions import db, lab_zone
from app.models import Booking, Host, User, Wait, WaitState
from app.services import bookings, changes, inventory, maintenance, news, notice_words, notices, openings, quota, starts
from app.services.claims import Ask
from app.services.rules import classes, periods
from app.services.rules.terms import Rules
from app.services.waits import joining, line, offers
from app.services.waits.joining import Wanted
from app.services.windows import Window
from tests.factories import gpus_of, make_admin, make_booking, make_host, make_user
from tests.services.conftest import NOW, Freeze

HOUR = timedelta(hours=1)
SLOT = 900
EIGHT = NOW + 6 * HOUR  # an exact window that many want: four hours from then


def exact(user: User, *, count: int = 4, **values: Any) -> Wait:
    by_itself = values.pop("by_itself", True)
    ask = Ask(**{"starts_at": EIGHT, "ends_at": EIGHT + 4 * HOUR, "count": count} | values)
    return joining.join(user, Wanted(ask, by_itself=by_itself), SLOT)


def flexible(user: User, hours: float, until: datetime, **values: Any) -> Wait:
    by_itself = values.pop("by_itself", True)
    return joining.join(user, Wanted(Ask(ends_at=until, **values), round(hours * 3600), by_itself), SLOT)


def full(host: Host, start: datetime = NOW - HOUR, end: datetime = NOW + 240 * HOUR, gpus: int = 4) -> list[Booking]:
    """Somebody has each of the GPUs."""
    return [make_booking(make_user(hours=1000), [gpu], start, end) for gpu in gpus_of(host)[:gpus]]


def free(booking: Booking) -> None:
    changes.withdraw("test", bookings.get(make_admin(), booking.id))


def end(booking: Booking) -> None:
    """Its owner gives back what runs."""
    changes.end_now(db.session.get_one(User, booking.user_id), booking.id)


def states() -> dict[int, str]:
    db.session.expire_all()
    return {wait.id: str(wait.state) for wait in db.session.scalars(db.select(Wait).order_by(Wait.id))}


@pytest.fixture(autouse=True)
def woken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    monkeypatch.setattr("app.queue.wake", found.append)
    return found


def test_what_is_granted_while_one_looks_is_in_the_list_once(host: Host) -> None:
    """The worker that serves the line is another process."""
    full(host)
    person = make_user()
    wait = exact(person)

    def grant(connection: Any, cursor: Any, statement: str, *_rest: Any) -> None:
        if "FROM waits" in statement:
            cursor.connection.execute(f"UPDATE waits SET state = 'granted', closed_at = now() WHERE id = {wait.id}")

    event.listen(db.engine, "after_cursor_execute", grant)
    try:
        found = line.mine(person)
    finally:
        event.remove(db.engine, "after_cursor_execute", grant)
    assert [one.id for one in found] == [wait.id]


def test_first_come_first_served_and_whoever_cannot_use_it_keeps_the_place(host: Host) -> None:
    full(host, EIGHT, EIGHT + 4 * HOUR, gpus=3)
    last = make_booking(make_user(), gpus_of(host)[3:], EIGHT, EIGHT + 4 * HOUR)
    poor, first, second = make_user(hours=1), make_user(), make_user()
    waits = [exact(person, count=1) for person in (poor, first, second)]
    assert serving.tend() == []
    free(last)
    (made,) = serving.tend()
    assert (made.user_id, [a.gpu_id for a in made.allocations]) == (first.id, [gpus_of(host)[3].id])
    assert list(states().values()) == ["waiting", "granted", "waiting"]
    quota.grant(quota.account(poor.username), 20, actor="test")
    free(made)
    assert [booking.user_id for booking in serving.tend()] == [poor.id], "before the second, who joined later"
    assert line.get(second, waits[2].id).state == WaitState.WAITING


def test_small_wishes_go_past_a_large_one(host: Host) -> None:
    """As the page says: nothing is kept empty for it."""
    held = full(host)
    large, small = make_user(), make_user()
    flexible(large, 4, NOW + 24 * HOUR, count=2)
    flexible(small, 4, NOW + 24 * HOUR)
    end(held[0])
    assert [booking.user_id for booking in serving.tend()] == [small.id]


@pytest.mark.parametrize("hours", [4, 3.9])
def test_a_flexible_wish_is_served_as_early_as_can_be(host: Host, woken: list[str], hours: float) -> None:
    held = full(host, NOW - HOUR, NOW + 30 * HOUR)
    person = make_user()
    wait = flexible(person, hours, NOW + 20 * HOUR, model=gpus_of(host)[0].model, note="Ablation")
    assert serving.tend() == []
    end(held[2])
    (made,) = serving.tend()
    assert (made.starts_at, made.ends_at, made.note) == (NOW, NOW + 4 * HOUR, "Ablation")
    assert woken == [host.name]
    found = line.get(person, wait.id)
    assert (found.state, found.booking_id, found.granted_at) == (WaitState.GRANTED, made.id, NOW)


def test_it_goes_where_the_person_has_a_machine_and_the_class_may_book(host: Host) -> None:
    from tests.factories import make_instance

    other = make_host("lab04", gpus=1)
    admin, person, barred = make_admin(), make_user(), make_user()
    make_instance(person, other)
    held = [*full(host), *full(other, gpus=1)]
    kind = classes.create(admin, "guests")
    classes.change(admin, kind.id, {"hosts": ["lab04"]})
    classes.assign(admin, barred.account, kind.id)  # type: ignore[arg-type]
    flexible(barred, 2, NOW + 9 * HOUR)
    flexible(person, 2, NOW + 9 * HOUR)
    end(held[0])
    assert [(made.user_id, made.host_id) for made in serving.tend()] == [(person.id, host.id)]
    flexible(person, 2, NOW + 9 * HOUR)
    end(held[1])
    end(held[4])
    given = [(made.user_id, made.host_id) for made in serving.tend()]
    assert given == [(barred.id, other.id), (person.id, host.id)]


def test_a_rule_that_refuses_the_first_window_may_allow_a_later_one(host: Host) -> None:
    person, admin = make_user(), make_admin()
    kind = classes.create(admin, "early birds")
    classes.change(admin, kind.id, {"gap_minutes": 60})
    classes.assign(admin, person.account, kind.id)  # type: ignore[arg-type]
    full(host, NOW, NOW + 2 * HOUR, gpus=3)
    make_booking(person, gpus_of(host)[3:], NOW, NOW + HOUR)
    flexible(person, 2, NOW + 20 * HOUR)
    assert [made.starts_at for made in serving.tend()] == [NOW + 2 * HOUR]


def test_whose_hours_of_the_day_are_used_up_gets_the_next_days(host: Host) -> None:
    person, admin = make_user(), make_admin()
    kind = classes.create(admin, "by day")
    classes.change(admin, kind.id, {"hours_day": 2})
    classes.assign(admin, person.account, kind.id)  # type: ignore[arg-type]
    make_booking(person, gpus_of(host)[3:], NOW - 2 * HOUR, NOW)
    flexible(person, 2, NOW + 40 * HOUR)
    tomorrow = periods.period(NOW, "day", Rules(), lab_zone()).ends_at
    assert [made.starts_at for made in serving.tend()] == [tomorrow]


def test_what_is_offered_is_held_and_goes_back_whole(host: Host, freeze: Freeze) -> None:
    held = full(host, EIGHT, EIGHT + 4 * HOUR)
    first, second = make_user(hours=16), make_user(hours=16)
    asked, also = exact(first, by_itself=False), exact(second, by_itself=False)
    for booking in held:
        free(booking)
    (offer,) = serving.tend()
    assert line.get(first, asked.id).decide_by == NOW + timedelta(minutes=30)
    assert quota.free(first.account_id or 0) == 0
    assert serving.tend() == []
    freeze(NOW + timedelta(minutes=31))
    with pytest.raises(Conflict):
        offers.accept(first, asked.id)
    (following,) = serving.tend()
    assert (following.user_id, quota.free(first.account_id or 0)) == (second.id, 16 * 3600)
    assert states() == {asked.id: "expired", also.id: "offered"}
    taken = offers.accept(second, also.id)
    assert offers.accept(second, also.id).closed_at == taken.closed_at, "sent twice"
    freeze(NOW + 2 * HOUR)
    assert serving.tend() == []
    assert states()[also.id] == "granted"
    assert bookings.get(first, offer.id).cancelled_at is not None


def test_an_offer_never_begins_before_it_is_answered(host: Host, freeze: Freeze) -> None:
    held = full(host)
    person = make_user()
    wait = flexible(person, 2, NOW + 30 * HOUR, by_itself=False)
    end(held[0])
    (made,) = serving.tend()
    assert made.starts_at == NOW + timedelta(minutes=45)  # the first line of the grid after half an hour
    decide_by = line.get(person, wait.id).decide_by
    assert decide_by is not None
    assert decide_by < made.starts_at
    freeze(made.starts_at + HOUR)  # nobody looked all this time
    serving.tend()
    assert quota.free(person.account_id or 0) == 100 * 3600 - 1
    assert (line.get(person, wait.id).state, bookings.get(person, made.id).ends_at) == (
        WaitState.EXPIRED, made.starts_at + timedelta(seconds=1),
    )  # fmt: skip


def test_an_offer_is_at_no_other_time_until_it_is_taken(host: Host) -> None:
    """Else its GPUs are attached before it is answered, and go back for nothing when it is not."""
    person, admin = make_user(), make_admin()
    wait = flexible(person, 2, NOW + 30 * HOUR, by_itself=False)
    (made,) = serving.tend()
    times = made.starts_at, made.ends_at
    moves = (
        lambda user: starts.move_start(user, made.id, NOW, SLOT),
        lambda user: changes.move_end(user, made.id, times[1] + HOUR, SLOT),
        lambda user: changes.move_end(user, made.id, times[1] - HOUR, SLOT),
        lambda user: starts.move(user, made.id, Window(NOW, times[1]), SLOT),
    )
    for move in moves:
        for user in (person, admin):
            with pytest.raises(RuleRefused, match="only offered") as refused:
                move(user)
            assert refused.value.details["rule"] == "offered"
    booking = bookings.get(person, made.id)
    assert (booking.starts_at, booking.ends_at) == times
    assert quota.free(person.account_id or 0) == 98 * 3600
    offers.accept(person, wait.id)
    assert starts.move_start(person, made.id, NOW, SLOT).starts_at == NOW
    assert changes.move_end(person, made.id, NOW + HOUR, SLOT).ends_at == NOW + HOUR


def test_maintenance_has_its_way_with_an_offer_too(host: Host) -> None:
    person, admin, gpus = make_user(), make_admin(), gpus_of(host)
    wait = exact(person, by_itself=False)
    (made,) = serving.tend()
    window = Window(EIGHT + HOUR, EIGHT + 9 * HOUR)
    seen = maintenance.fingerprint(maintenance.plan(gpus, window))
    maintenance.schedule(admin, host, gpus, window, "fans", seen)
    assert bookings.get(person, made.id).ends_at == EIGHT + HOUR
    assert offers.accept(person, wait.id).state == WaitState.GRANTED


@pytest.mark.parametrize("by_itself", [True, False])
def test_with_a_notice_it_is_served_as_soon_as_that_is_over(host: Host, by_itself: bool) -> None:
    person, admin = make_user(), make_admin()
    kind = classes.create(admin, "planners")
    classes.change(admin, kind.id, {"notice_minutes": 61})
    classes.assign(admin, person.account, kind.id)  # type: ignore[arg-type]
    assert gpus_of(host)
    flexible(person, 2, NOW + 20 * HOUR, by_itself=by_itself)
    assert [(made.starts_at, made.ends_at) for made in serving.tend()] == [(NOW + 1.25 * HOUR, NOW + 3.25 * HOUR)]


def test_what_was_booked_unasked_can_be_given_back_without_a_fee(host: Host, freeze: Freeze) -> None:
    admin, person = make_admin(), make_user()
    classes.change(admin, classes.of_account(None).id, {"late_hours": 24, "late_percent": 100})
    held = full(host, EIGHT, EIGHT + 4 * HOUR)
    exact(person, count=1)
    exact(other := make_user(), count=1)
    free(held[0])
    (made,) = serving.tend()
    changes.cancel(person, made.id)
    assert quota.free(person.account_id or 0) == 100 * 3600
    (theirs,) = serving.tend()
    freeze(NOW + timedelta(minutes=31))
    changes.cancel(other, theirs.id)
    assert quota.free(other.account_id or 0) == 96 * 3600, "later it costs what it costs everybody"


def test_leaving_an_offer_passes_it_on_and_leaving_the_line_can_be_undone(host: Host, freeze: Freeze) -> None:
    held = full(host, EIGHT, EIGHT + 4 * HOUR)
    first, second = make_user(), make_user()
    offered, waiting = exact(first, by_itself=False), exact(second, by_itself=False)
    joining.leave(second, waiting.id)
    freeze(NOW + timedelta(minutes=9))
    assert joining.can_return(line.get(second, waiting.id))
    joining.come_back(second, waiting.id)
    for booking in held:
        free(booking)
    serving.tend()
    joining.leave(first, offered.id)
    assert quota.free(first.account_id or 0) == 100 * 3600
    assert [made.user_id for made in serving.tend()] == [second.id]
    with pytest.raises(RuleRefused):
        joining.come_back(first, offered.id)
    with pytest.raises(Conflict):
        joining.leave(first, offered.id)


def test_an_offer_whose_booking_was_cancelled_is_over(host: Host) -> None:
    held = full(host, EIGHT, EIGHT + 4 * HOUR)
    wait = exact(person := make_user(), by_itself=False)
    for booking in held:
        free(booking)
    (made,) = serving.tend()
    changes.cancel(person, made.id)
    serving.tend()
    assert states()[wait.id] == "withdrawn"


@pytest.mark.parametrize("how", ["maintenance", "service", "month", "rules", "shorter"])
def test_whatever_frees_something_serves_the_line(app: Flask, host: Host, freeze: Freeze, how: str) -> None:
    admin, person, gpus = make_admin(), make_user(hours=0 if how == "month" else 100), gpus_of(host)
    held, release = [], None
    if how == "maintenance":
        window = Window(NOW + HOUR, NOW + 40 * HOUR)
        made, _hosts = maintenance.schedule(admin, host, gpus, window, "", maintenance.fingerprint([]))
        release = lambda: maintenance.lift(admin, made.id)  # noqa: E731
    elif how == "service":
        held = full(host, gpus=3)
        inventory.set_gpu_state("boss", gpus[3], "maintenance")  # type: ignore[arg-type]
        release = lambda: inventory.set_gpu_state("boss", gpus[3], "in_service")  # type: ignore[arg-type] # noqa: E731
    elif how == "month":
        account = person.account
        assert account is not None
        account.monthly, account.renews_at = 50 * 3600, NOW + HOUR
        release = lambda: (freeze(NOW + HOUR), quota.renew_due(app.extensions["berth"].zone))  # noqa: E731
    elif how == "rules":
        kind = classes.create(admin, "slow")
        classes.change(admin, kind.id, {"bookings_ahead": 1, "gpus_at_once": 1})
        classes.assign(admin, person.account, kind.id)  # type: ignore[arg-type]
        make_booking(person, gpus[:1], NOW, NOW + 40 * HOUR)
        account = person.account
        release = lambda: classes.assign(admin, account, classes.of_account(None).id)  # type: ignore[arg-type] # noqa: E731
    else:
        held = full(host)
        release = lambda: changes.move_end(db.session.get_one(User, held[0].user_id), held[0].id, NOW + 2 * HOUR, SLOT)  # noqa: E731
    flexible(person, 2, NOW + 30 * HOUR) if how != "maintenance" else flexible(
        person, 2, NOW + 30 * HOUR, starts_at=NOW + HOUR
    )
    assert serving.tend() == []
    release()
    assert [booking.user_id for booking in serving.tend()] == [person.id]


def test_what_no_waiting_would_bring_is_refused_at_once(host: Host) -> None:
    person = make_user()
    for wrong, kind in (
        (lambda: exact(person, count=5), RuleRefused),  # no host has so many
        (lambda: exact(person, model="RTX 9090"), InvalidInput),
        (lambda: exact(person, starts_at=None), InvalidInput),  # it has begun
        (lambda: flexible(person, 5, NOW + 4 * HOUR), InvalidInput),
        (lambda: flexible(person, 100, NOW + 200 * HOUR), RuleRefused),  # longer than a booking may be
        (lambda: flexible(person, 2, NOW + 4 * HOUR, note="x" * 201), InvalidInput),
        (lambda: flexible(person, 2, NOW + 4 * HOUR, account="team:nobody"), InvalidInput),
    ):
        with pytest.raises(kind):
            wrong()
    assert states() == {}
    kept = [flexible(person, 2, NOW + 9 * HOUR, request_key="one").id for _ in range(2)]
    assert kept[0] == kept[1]
    for _ in range(joining.MOST - 1):
        flexible(person, 2, NOW + 9 * HOUR)
    with pytest.raises(RuleRefused, match="5 times"):
        flexible(person, 2, NOW + 9 * HOUR)


def test_ones_place_counts_those_who_want_the_same(host: Host) -> None:
    make_host("lab04", model="NVIDIA RTX 3090")
    full(host)
    exact(make_user(), model="NVIDIA RTX 3090")
    exact(make_user(), gpu_ids=(gpus_of(host)[0].id,))
    exact(make_user(), starts_at=EIGHT + 9 * HOUR, ends_at=EIGHT + 10 * HOUR)
    mine = exact(make_user(), host=host.name)
    assert line.place(mine, line.everybody(), openings.usable_gpus()) == 2


def test_who_waits_is_told_once_and_not_of_a_booking_they_have_not_taken(host: Host, freeze: Freeze) -> None:
    held = full(host, EIGHT, EIGHT + 4 * HOUR)
    person = make_user(locale="zh_Hans_CN")
    notices.choose(person, {event: ["mail"] for event in notices.offered(person)})
    exact(person, by_itself=False)
    flexible(person, 1, NOW + timedelta(minutes=75), by_itself=False)  # for which an offer comes too late
    for booking in held:
        free(booking)
    news.collect(mail=True)
    before = {notice.id for notice in notices.latest(person)}
    serving.tend()
    freeze(NOW + HOUR)
    serving.tend()
    news.collect(mail=True)
    told = [notice for notice in notices.latest(person) if notice.id not in before][::-1]
    assert [(n.event, n.details["action"], n.details["offered"]) for n in told] == [
        ("offered", "wait.offered", False), ("offered", "wait.expired", True), ("offered", "wait.expired", False),
    ]  # fmt: skip
    said = [notice_words.message(person, [notice], "https://b", app_zone()).text for notice in told]
    assert all("https://b/waits" in text for text in said)


def app_zone() -> Any:
    from app.extensions import lab_zone

    return lab_zone()
