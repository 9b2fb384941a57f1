"""Find me a slot: held against trying every start there is."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import InvalidInput, QuotaExceeded, RuleRefused
from app.models import User
from app.services import gaps, maintenance, policy, slots, teams
from app.services.rules import classes
from app.services.slots import Found, Wish
from app.services.windows import Window
from tests.factories import gpus_of, make_admin, make_booking, make_host, make_user

NOW = datetime(2026, 11, 4, 12, 3, tzinfo=UTC)
HOUR = timedelta(hours=1)
SLOT = 900
NOON = NOW.replace(minute=0)


@pytest.fixture
def still(app: object, freeze: Callable[[datetime], None]) -> None:
    assert app
    freeze(NOW)


def starts(found: Found) -> list[tuple[str, datetime]]:
    return [(one.proposal.gpus[0].host.name, one.proposal.window.starts_at) for one in found.offers]


def made_to_keep(hours: float = 100, **rules: object) -> User:
    """Somebody of a class with these rules."""
    admin, user = make_admin(), make_user(hours=hours)
    kind = classes.create(admin, f"class of {user.username}")
    classes.change(admin, kind.id, rules)
    classes.assign(admin, user.account, kind.id)  # type: ignore[arg-type]
    return user


@pytest.mark.usefixtures("still")
def test_at_once_where_it_is_free_and_the_earliest_elsewhere() -> None:
    user = make_user()
    first, second, third = (make_host(name, gpus=2) for name in ("lab01", "lab02", "lab03"))
    make_booking(user, gpus_of(first)[:1], NOW - HOUR, NOON + 5 * HOUR)
    make_booking(user, gpus_of(second), NOON + 2 * HOUR, NOON + 9 * HOUR)
    found = slots.find(user, Wish(2, 2 * 3600), SLOT)
    assert starts(found) == [("lab03", NOW), ("lab01", NOON + 5 * HOUR), ("lab02", NOON + 9 * HOUR)]
    assert not found.late
    at_once = found.offers[0]
    assert (at_once.ask.starts_at, at_once.ask.ends_at) == (None, NOON + 2.25 * HOUR)  # the grid's next line
    assert {gpu.host_id for gpu in at_once.proposal.gpus} == {third.id}
    one = slots.find(user, Wish(1, 2 * 3600), SLOT)
    assert starts(one)[:2] == [("lab01", NOW), ("lab03", NOW)]
    assert one.offers[0].proposal.gpus == (gpus_of(first)[1],)


@pytest.mark.usefixtures("still")
def test_the_nearest_to_a_time_on_either_side_of_it() -> None:
    user = make_user()
    gpus = gpus_of(make_host("lab01", gpus=1))
    evening = NOON + 30 * HOUR
    make_booking(user, gpus, evening - 2 * HOUR, evening + 3 * HOUR)
    both = [("lab01", evening + 3 * HOUR), ("lab01", evening - 4 * HOUR)]
    assert starts(slots.find(user, Wish(1, 2 * 3600, near=evening), SLOT)) == both
    assert starts(slots.find(user, Wish(1, 3600, near=evening - HOUR), SLOT))[0] == ("lab01", evening - 3 * HOUR)
    assert starts(slots.find(user, Wish(1, 3600, near=NOON + 9 * HOUR), SLOT))[0] == ("lab01", NOON + 9 * HOUR)


@pytest.mark.usefixtures("still")
def test_over_by_then_or_said_to_be_late() -> None:
    user = make_user()
    gpus = gpus_of(make_host("lab01", gpus=1))
    make_booking(user, gpus, NOW - HOUR, NOON + 20 * HOUR)
    just = slots.find(user, Wish(1, 4 * 3600, before=NOON + 24 * HOUR), SLOT)
    assert (starts(just), just.late) == ([("lab01", NOON + 20 * HOUR)], False)
    late = slots.find(user, Wish(1, 5 * 3600, before=NOON + 24 * HOUR), SLOT)
    assert (starts(late), late.late) == ([("lab01", NOON + 20 * HOUR)], True)
    after = slots.find(user, Wish(1, 3600, not_before=NOON + 48 * HOUR), SLOT)
    assert starts(after) == [("lab01", NOON + 48 * HOUR)]
    assert slots.find(user, Wish(1, 3600, not_before=NOW + timedelta(days=300)), SLOT).offers == ()


@pytest.mark.usefixtures("still")
def test_far_ahead_is_looked_at_only_when_nothing_is_near() -> None:
    user = make_user(hours=10_000)
    gpus = gpus_of(make_host("lab01", gpus=1))
    for day in range(9):
        make_booking(user, gpus, NOON + day * 24 * HOUR, NOON + (day * 24 + 23) * HOUR)
    assert starts(slots.find(user, Wish(1, 3600), SLOT))[0] == ("lab01", NOON + 23 * HOUR)
    assert starts(slots.find(user, Wish(1, 2 * 3600), SLOT)) == [("lab01", NOON + (8 * 24 + 23) * HOUR)]


@pytest.mark.usefixtures("still")
def test_what_cannot_be_had_says_why() -> None:
    user, poor = make_user(), make_user(hours=1)
    make_host("lab01", gpus=2, model="A")
    make_host("lab02", gpus=4, model="B")
    with pytest.raises(RuleRefused, match="the most on one host is 2"):
        slots.find(user, Wish(3, 3600, model="A"), SLOT)
    with pytest.raises(InvalidInput):
        slots.find(user, Wish(1, 3600, model="C"), SLOT)
    with pytest.raises(InvalidInput):
        slots.find(user, Wish(0, 3600), SLOT)
    with pytest.raises(InvalidInput):
        slots.find(user, Wish(1, 0), SLOT)
    with pytest.raises(QuotaExceeded):
        slots.find(poor, Wish(1, 2 * 3600), SLOT)
    with pytest.raises(RuleRefused):
        slots.find(user, Wish(1, (policy.current().max_hours + 1) * 3600), SLOT)


@pytest.mark.usefixtures("still")
def test_with_a_notice_nothing_is_proposed_before_it_is_over() -> None:
    user = made_to_keep(notice_minutes=60)
    make_host("lab01", gpus=1)
    earliest = [("lab01", NOON + 1.25 * HOUR)]
    assert starts(slots.find(user, Wish(1, 3600), SLOT)) == earliest
    assert starts(slots.find(user, Wish(1, 3600, near=NOW + HOUR / 4), SLOT)) == earliest
    late = slots.find(user, Wish(1, 3600, before=NOON + 2 * HOUR), SLOT)
    assert (starts(late), late.late) == (earliest, True)
    assert starts(slots.find(user, Wish(1, 3600, not_before=NOON + 9 * HOUR), SLOT)) == [("lab01", NOON + 9 * HOUR)]
    with pytest.raises(RuleRefused, match="60 minutes before it starts"):
        slots.free_now(user, SLOT)


@pytest.mark.usefixtures("still")
def test_only_what_the_account_may_use_is_looked_at() -> None:
    user = made_to_keep(hosts=["lab05", "lab06"], models=["A"])
    for number in range(1, 6):
        make_host(f"lab0{number}", gpus=2, model="A")
    make_host("lab06", gpus=8, model="B")
    assert starts(slots.find(user, Wish(1, 3600), SLOT)) == [("lab05", NOW)]
    assert [one.proposal.gpus[0].host.name for one in slots.free_now(user, SLOT)] == ["lab05"]
    with pytest.raises(RuleRefused, match="the most on one host is 2"):
        slots.find(user, Wish(3, 3600), SLOT)
    with pytest.raises(RuleRefused, match="may not use GPUs of lab01"):
        slots.find(user, Wish(1, 3600, host="lab01"), SLOT)


@pytest.mark.usefixtures("still")
def test_a_rule_that_time_helps_against_is_waited_for() -> None:
    gpus = [gpu for name in ("lab01", "lab02") for gpu in gpus_of(make_host(name, gpus=2))]
    spent = made_to_keep(hours_day=4)
    make_booking(spent, gpus[:1], NOON - 4 * HOUR, NOON)
    midnight = NOON + 4 * HOUR  # of the lab
    assert starts(slots.find(spent, Wish(1, 2 * 3600), SLOT)) == [("lab01", midnight), ("lab02", midnight)]
    late = slots.find(spent, Wish(1, 2 * 3600, before=NOON + 3 * HOUR), SLOT)
    assert (starts(late)[0], late.late) == (("lab01", midnight), True)
    with pytest.raises(RuleRefused, match="4 GPU-hours a day"):
        slots.find(spent, Wish(2, 3 * 3600), SLOT)
    full = made_to_keep(gpus_at_once=2)
    make_booking(full, gpus[:2], NOON, NOON + 3 * HOUR)
    make_booking(full, gpus[2:3], NOON + 4 * HOUR, NOON + 5 * HOUR)
    assert starts(slots.find(full, Wish(1, 3600), SLOT)) == [("lab01", NOON + 3 * HOUR), ("lab02", NOON + 3 * HOUR)]
    assert starts(slots.find(full, Wish(2, 2 * 3600), SLOT))[0] == ("lab01", NOON + 5 * HOUR)


@pytest.mark.usefixtures("still")
def test_free_this_minute_for_as_long_as_rules_and_quota_allow() -> None:
    make_host("lab01", gpus=1)

    def until(user: User) -> list[datetime]:
        return [one.proposal.window.ends_at for one in slots.free_now(user, SLOT)]

    assert until(made_to_keep(max_hours=2)) == [NOON + 2 * HOUR]
    assert until(make_user(hours=3)) == [NOON + 3 * HOUR]
    assert until(made_to_keep(hours=3, weights={"NVIDIA RTX A6000": 200})) == [NOON + HOUR]
    with pytest.raises(QuotaExceeded):
        slots.free_now(make_user(hours=0), SLOT)


@pytest.mark.usefixtures("still")
def test_on_a_teams_account() -> None:
    member = make_user("member", hours=0)
    team = teams.create(make_admin(), "Vision", "member", 20)
    make_host("lab01", gpus=1)
    found = slots.find(member, Wish(1, 3600, account=team.name), SLOT).offers[0]
    assert (found.ask.account, found.proposal.free_after) == (team.name, 20 * 3600 - found.proposal.cost)
    assert [one.ask.account for one in slots.free_now(member, SLOT, account=team.name)] == [team.name]
    with pytest.raises(QuotaExceeded):
        slots.find(member, Wish(1, 3600), SLOT)


@pytest.mark.usefixtures("still")
def test_free_this_minute_and_until_when() -> None:
    user = make_user()
    first, second = make_host("lab01", gpus=2), make_host("lab02", gpus=1)
    make_booking(user, gpus_of(first)[:1], NOON + HOUR, NOON + 2 * HOUR)
    make_booking(user, gpus_of(second), NOON + HOUR, NOON + 2 * HOUR)
    offers = slots.free_now(user, SLOT)
    assert [(one.proposal.gpus[0].host.name, one.proposal.window.ends_at) for one in offers] == [
        ("lab01", NOON + 4.25 * HOUR),
        ("lab02", NOON + HOUR),
    ]
    assert {one.ask.starts_at for one in offers} == {None}
    make_booking(user, gpus_of(second), NOW - HOUR, NOON + HOUR)
    assert len(slots.free_now(user, SLOT)) == 1


@given(
    booked=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40), st.integers(1, 9)), max_size=14),
    count=st.integers(1, 4),
    length=st.integers(1, 8),
)
def test_starts_are_those_that_trying_each_would_find(
    booked: list[tuple[int, int, int]], count: int, length: int
) -> None:
    def at(number: float) -> datetime:
        return NOON + number * HOUR / 4

    room: dict[int, list[Window]] = {}
    for gpu in range(4):
        taken = {n for one, start, size in booked if one == gpu for n in range(start, start + size)}
        free = [n for n in range(48) if n not in taken]
        runs: list[list[int]] = []
        for n in free:
            if runs and runs[-1][1] == n:
                runs[-1][1] = n + 1
            else:
                runs.append([n, n + 1])
        room[gpu] = [Window(at(a), at(b)) for a, b in runs]
    found = gaps.starts(room, count, length * HOUR / 4, SLOT)
    allowed = {n for n in range(49) for first, last in found if first <= at(n) <= last}
    expected = {
        n
        for n in range(49)
        if sum(any(w.starts_at <= at(n) and at(n + length) <= w.ends_at for w in room[gpu]) for gpu in room) >= count
    }
    assert allowed == expected


@pytest.mark.usefixtures("still")
def test_the_database_says_where_there_is_room() -> None:
    user = make_user()
    gpus = gpus_of(make_host("lab01", gpus=2))
    for start, end in ((-3, 1), (1, 2), (4, 6), (6.5, 9), (20, 30)):
        make_booking(user, gpus[:1], NOON + start * HOUR, NOON + end * HOUR)
    window = Window(NOW, NOON + 24 * HOUR)
    found = gaps.rooms(gpus, window, HOUR)
    assert found[gpus[0].id] == [
        Window(NOON + 2 * HOUR, NOON + 4 * HOUR),
        Window(NOON + 9 * HOUR, NOON + 20 * HOUR),
    ]
    assert found[gpus[1].id] == [window]
    assert {moment.tzinfo for one in found[gpus[0].id] for moment in (one.starts_at, one.ends_at)} == {UTC}


@pytest.mark.usefixtures("still")
def test_maintenance_is_no_room() -> None:
    user, host = make_user(), make_host("lab01", gpus=1)
    gpus, work = gpus_of(host), Window(NOON + HOUR, NOON + 3 * HOUR)
    maintenance.schedule(make_admin(), host, gpus, work, "", maintenance.fingerprint([]))
    assert starts(slots.find(user, Wish(1, 2 * 3600), SLOT))[0] == ("lab01", NOON + 3 * HOUR)
    assert slots.free_now(user, SLOT)[0].proposal.window.ends_at == NOON + HOUR
