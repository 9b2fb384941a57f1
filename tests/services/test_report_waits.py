"""Who waited, and how long: what one gets by going through the places on the waiting list one by one."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from app import clock, serving
from app.config import Settings
from app.extensions import db, lab_zone
from app.models import Account, Host, Wait, WaitState
from app.models.accounts import TEAM
from app.services.periods import midnight
from app.services.reports import report, waiting
from app.services.reports.pieces import Key, Scope
from app.services.reports.report import Group
from app.services.reports.spans import Span
from app.services.reports.waiting import Waits
from app.services.waits import joining, offers
from tests.conftest import settings_for
from tests.factories import gpus_of, make_booking, make_host, make_user
from tests.services.test_report_numbers import PLACES
from tests.services.test_waits import end, flexible, full

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
OUTCOMES = ("booked", "offered", "not_taken", "in_vain", "left", "waiting")


@pytest.fixture(params=PLACES, ids=lambda place: place[0])
def first_day(request: pytest.FixtureRequest) -> date:
    return request.param[1]


@pytest.fixture
def settings(shared_db: str, tmp_path: Path, request: pytest.FixtureRequest) -> Settings:
    callspec = getattr(request.node, "callspec", None)
    place = callspec.params["first_day"] if callspec and "first_day" in callspec.params else PLACES[0]
    return settings_for(shared_db, tmp_path, BERTH_TZ=place[0])


class Line:
    """Places that people took around some days, with what became of each kept aside."""

    def __init__(self, first: date) -> None:
        self.dice = random.Random(first.toordinal())
        self.start = midnight(first, lab_zone())
        self.hosts = [make_host(gpus=2, model=model) for model in ("NVIDIA A100", "NVIDIA L40S")]
        self.people = [make_user(hours=9000) for _ in range(3)]
        self.team = Account(name=f"{TEAM}vision {first}")
        db.session.add(self.team)
        db.session.flush()
        self.places = [
            self.place(self.start - 2 * DAY + number * 41 * MINUTE, self.dice.choice([0, 90, 9000, 90_000, 200_000]))
            for number in range(160)
        ]
        for edge in (self.start, midnight(first + 2 * DAY, lab_zone())):  # to the second, and just before it
            self.places += [self.place(edge - length - early, length.seconds) for length in (HOUR, 0 * HOUR)
                            for early in (MINUTE / 60, 0 * MINUTE) for _ in range(3)]  # fmt: skip

    def place(self, joined: datetime, seconds: int) -> tuple[dict[Key, Any], int, str, datetime, datetime | None]:
        """Its keys, its account, what became of it, when it was joined, and when it was answered or closed."""
        dice, person, host = self.dice, self.dice.choice(self.people), self.dice.choice(self.hosts)
        became = dice.choice(OUTCOMES)
        over = None if became == "waiting" else joined + timedelta(seconds=seconds)
        if over and over > clock.now():
            became, over = "waiting", None
        wish: dict[str, Any] = dice.choice([{}, {"model": "NVIDIA A100"}, {"host": host.name}, {"gpu_ids": [0]}])
        if "gpu_ids" in wish:
            wish = {"gpu_ids": [gpu.id for gpu in gpus_of(host)]}
        of_team = dice.random() < 0.3
        state = {"booked": "granted", "offered": "offered", "in_vain": "expired", "waiting": "waiting"}.get(
            became, "withdrawn" if became == "left" else dice.choice(["withdrawn", "expired"])
        )
        answered = became in {"booked", "offered", "not_taken"}
        closed = None if over is None or state == "offered" else over + answered * dice.choice([0, 3600]) * MINUTE / 60
        account = self.team.name if of_team else dice.choice(["", person.username])
        wait = Wait(
            user_id=person.id, account=account, state=WaitState(state), by_itself=True, count=1, created_at=joined,
            seconds=3600, starts_at=joined, ends_at=joined + DAY, closed_at=closed,
            granted_at=over if answered else None, **wish,
        )  # fmt: skip
        db.session.add(wait)
        named = bool(wish.get("gpu_ids"))
        keys = {
            Key.PERSON: person.id,
            Key.TEAM: self.team.id if of_team else 0,
            Key.HOST: host.id if named or "host" in wish else 0,
            Key.MODEL: gpus_of(host)[0].model if named else wish.get("model", ""),
        }
        return keys, self.team.id if of_team else -1, became, joined, over

    def count(self, start: datetime, end: datetime, group: Callable[..., Any], scope: Scope) -> dict[Any, Waits]:
        """By hand."""
        found: dict[Any, list[tuple[str, float]]] = {}
        for keys, account, became, joined, over in self.places:
            if scope.user_id not in {None, keys[Key.PERSON]} or scope.account_id not in {None, account}:
                continue
            if joined >= end or (over is not None and over < start):
                continue
            still = over is None or over >= end
            seconds = ((end if over is None or still else over) - joined).total_seconds()
            found.setdefault(group(keys), []).append(("waiting" if still else became, seconds))
        return {
            key: Waits(
                len(all_),
                *(sum(became == one for became, _ in all_) for one in OUTCOMES),
                median(seconds for _, seconds in all_),
                max(seconds for _, seconds in all_),
            )
            for key, all_ in found.items()
        }


def test_who_waited_is_what_counting_by_hand_gives(app: object, first_day: date, freeze: Any) -> None:
    freeze(midnight(first_day + 3 * DAY, UTC) + 5 * HOUR)  # type: ignore[arg-type]
    line = Line(first_day)
    midday = line.start + 12 * HOUR + 7 * MINUTE
    spans = [
        (line.start, midnight(first_day + 2 * DAY, lab_zone())),  # over a change of clocks, or a month's end
        (midday, midday + 41 * MINUTE),
        (line.start - 9 * DAY, line.start + 30 * DAY),  # ends later than now
        (line.start - 9 * DAY, line.start - 8 * DAY),  # nobody waited
    ]
    db.session.flush()
    scopes = (Scope(), Scope(user_id=line.people[0].id), Scope(account_id=line.team.id))
    for number, (start, until) in enumerate(spans):
        span = Span.of(start, until, lab_zone(), clock.now())
        for scope in scopes:
            past = min(until, clock.now())
            for key in (Key.PERSON, Key.TEAM, Key.HOST, Key.MODEL):
                whole, found = waiting.of(span, key, scope)
                assert found == line.count(start, past, lambda keys, key=key: keys[key], scope), (start, key, scope)
                assert whole == line.count(start, past, lambda _: "all", scope).get("all", Waits())
                assert sum(getattr(whole, one) for one in OUTCOMES) == whole.places
            assert bool(whole.places) == (number < 3)
    whole, _ = waiting.of(Span.of(*spans[0], lab_zone(), clock.now()), Key.TEAM, Scope())
    assert all(getattr(whole, one) for one in OUTCOMES), "each of them happened"


def test_what_the_waiting_list_does_is_what_the_report_has(host: Host, freeze: Any) -> None:
    """Through the services: one booked, one that took an offer, one that let it lapse, one that left and one that
    waits on; in the report of a day before, all of them still wait."""
    held = full(host, gpus=4)
    joined = clock.now()
    first, second, third, fourth, fifth = (make_user(name) for name in ("an", "bo", "cy", "di", "ed"))
    last = joined + 90 * HOUR
    flexible(first, 1, last)
    taken, lapsed = (flexible(one, 1, last, by_itself=False) for one in (second, third))
    left = flexible(fourth, 1, last)
    freeze(joined + HOUR)
    joining.leave(fourth, left.id)
    freeze(joined + 2 * HOUR)
    for booking in held[:3]:
        end(booking)
    assert len(serving.tend()) == 3
    offers.accept(second, taken.id)
    freeze(joined + 2 * HOUR + 40 * MINUTE)
    serving.tend()
    freeze(joined + 4 * HOUR)
    make_booking(make_user(hours=9000), gpus_of(host)[:3], clock.now(), joined + 240 * HOUR)
    flexible(fifth, 30, last)
    freeze(joined + 5 * HOUR)
    span = Span.of(joined - DAY, joined + DAY, lab_zone(), clock.now())
    made = report.waits(span, Group.DAY, Scope())
    rows = {row.name: row.waits for row in made.rows}
    assert (made.by, db.session.get_one(Wait, lapsed.id).state) == (Group.PERSON, WaitState.EXPIRED)
    assert rows == {
        "An": Waits(places=1, booked=1, median=7200, longest=7200),
        "Bo": Waits(places=1, booked=1, median=7200, longest=7200),
        "Cy": Waits(places=1, not_taken=1, median=7200, longest=7200),
        "Di": Waits(places=1, left=1, median=3600, longest=3600),
        "Ed": Waits(places=1, waiting=1, median=3600, longest=3600),
    }
    assert made.total == Waits(5, booked=2, not_taken=1, left=1, waiting=1, median=7200, longest=7200)
    early = Span.of(joined - DAY, joined + 30 * MINUTE, lab_zone(), clock.now())
    assert waiting.of(early, Key.NOTHING, Scope())[0] == Waits(4, waiting=4, median=1800, longest=1800)


def test_nobody_has_waited_in_days_to_come(app: object, freeze: Callable[[datetime], None]) -> None:
    first = PLACES[0][1]
    line = Line(first)
    freeze(line.start)
    span = Span.of(line.start + 40 * DAY, line.start + 50 * DAY, lab_zone(), clock.now())
    assert waiting.of(span, Key.NOTHING, Scope()) == (Waits(), {})
