"""Each rule of a class, at its edge: what just keeps it, what just breaks it, and what the refusal says."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from flask import Flask

from app.errors import InvalidInput, RuleRefused
from app.services.rules import check, periods, tariff, terms, trial
from app.services.rules.check import Asked, Standing
from app.services.rules.limits import Claim
from app.services.rules.terms import Rules
from app.services.rules.trial import Past
from app.services.windows import Window

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 11, 24, 4, tzinfo=UTC)  # a Tuesday, 5:00 in Berlin
HOUR = timedelta(hours=1)

pytestmark = pytest.mark.usefixtures("app")


def hours(start: float, length: float) -> Window:
    return Window(NOW + start * HOUR, NOW + (start + length) * HOUR)


def refusals(rules: Rules, window: Window, *claims: Claim, gpus: int = 1, **more: Any) -> list[RuleRefused]:
    asked = Asked(window, gpus, NOW, **more)
    return list(check.broken(asked, Standing(claims), rules, BERLIN))


EDGES: list[tuple[Rules, dict[str, Any], dict[str, Any]]] = [  # rules, what just keeps them, what just breaks them
    (Rules(min_minutes=60), {"window": hours(1, 1)}, {"window": hours(1, 0.75)}),
    (Rules(notice_minutes=60), {"window": hours(1, 1)}, {"window": hours(0.75, 1)}),
    (
        Rules(gpus_at_once=3),
        {"window": hours(2, 2), "claims": [Claim(hours(0, 2), 2), Claim(hours(3, 1), 2)], "gpus": 1},
        {"window": hours(2, 2), "claims": [Claim(hours(0, 3), 2), Claim(hours(2.5, 1), 1)], "gpus": 1},
    ),
    (
        Rules(bookings_ahead=2),
        {"window": hours(1, 1), "claims": [Claim(hours(-1, 2), 1), Claim(hours(9, 1), 1)]},
        {"window": hours(1, 1), "claims": [Claim(hours(8, 1), 1), Claim(hours(9, 1), 1)]},
    ),
    (
        Rules(gap_minutes=120),
        {"window": hours(4, 1), "claims": [Claim(hours(1, 1), 1), Claim(hours(7, 1), 1)]},
        {"window": hours(4, 1), "claims": [Claim(hours(1, 1), 1), Claim(hours(6.75, 1), 1)]},
    ),
    (
        Rules(far_days=3, far_hours=4),
        {"window": hours(70, 4), "claims": [Claim(hours(100, 2), 1)]},
        {"window": hours(70, 4.5), "claims": [Claim(hours(100, 2), 1)]},
    ),
    (  # 5:00 in Berlin: the day ends 19 hours from now
        Rules(hours_day=4),
        {"window": hours(16, 6), "claims": [Claim(hours(0, 1), 1)]},
        {"window": hours(16, 6), "claims": [Claim(hours(0, 0.75), 1), Claim(hours(1, 0.5), 1)]},
    ),
    (
        Rules(hours_week=10, week_day=2),  # Wednesday: what was booked for today is of the week before
        {"window": hours(24, 5), "gpus": 2, "claims": [Claim(hours(5, 9), 1)]},
        {"window": hours(24, 5), "gpus": 2, "claims": [Claim(hours(30, 1), 1)]},
    ),
    (
        Rules(hours_month=10, month_day=25),
        {"window": hours(24, 5), "gpus": 2, "claims": [Claim(hours(5, 9), 1)]},
        {"window": hours(24, 5), "gpus": 2, "claims": [Claim(hours(24 * 20, 1), 1)]},
    ),
    (
        Rules(models=("A6000", "H100")),
        {"window": hours(0, 1), "models": frozenset({"A6000"})},
        {"window": hours(0, 1), "models": frozenset({"A6000", "A100"})},
    ),
    (Rules(hosts=("lab01",)), {"window": hours(0, 1), "host": "lab01"}, {"window": hours(0, 1), "host": "lab02"}),
]


@pytest.mark.parametrize(("rules", "kept", "broken"), EDGES)
def test_each_rule_at_its_edge(rules: Rules, kept: dict[str, Any], broken: dict[str, Any]) -> None:
    assert not refusals(rules, kept.pop("window"), *kept.pop("claims", ()), **kept)
    (refusal,) = refusals(rules, broken.pop("window"), *broken.pop("claims", ()), **broken)
    (named,) = [name for name, value in terms.changes(asdict(Rules()), asdict(rules)).items()
                if name == refusal.details["rule"]]  # fmt: skip
    assert str(getattr(rules, named)) in refusal.brief or named in {"models", "hosts"}
    assert refusal.hint


def test_a_later_end_is_held_against_what_is_new_of_it() -> None:
    """What is booked already was right when it was booked."""
    rules, whole, added = Rules(min_minutes=600, notice_minutes=60, gpus_at_once=1), hours(-1, 3), hours(1, 1)
    assert not refusals(rules, whole, Claim(hours(0, 1), 1), added=added)
    assert [r.details["rule"] for r in refusals(rules, whole, Claim(hours(1.5, 1), 1), added=added)] == ["gpus_at_once"]
    assert not refusals(Rules(hours_day=3), whole, added=added)
    assert refusals(Rules(hours_day=2), whole, added=added)


def test_the_refusal_names_the_moment_by_the_labs_clock() -> None:
    (refusal,) = refusals(Rules(hours_day=4), hours(16, 6), Claim(hours(0, 2), 1))
    assert "on the day from Tue 24 Nov 00:00 it would be 5" in refusal.brief
    assert refusal.hint == "2 are left there. It counts anew from Wed 25 Nov 00:00 (Europe/Berlin)."


@pytest.mark.parametrize(
    ("day", "kind", "length"),
    [
        (datetime(2026, 10, 25, 12, tzinfo=UTC), "day", 25),
        (datetime(2026, 3, 29, 12, tzinfo=UTC), "day", 23),
        (datetime(2026, 10, 25, 12, tzinfo=UTC), "week", 7 * 24 + 1),
        (datetime(2026, 10, 25, 12, tzinfo=UTC), "month", 31 * 24 + 1),
        (datetime(2026, 12, 31, 23, 30, tzinfo=UTC), "month", 31 * 24),  # January in Berlin already
    ],
)
def test_days_weeks_and_months_where_clocks_change(day: datetime, kind: str, length: int) -> None:
    found = periods.period(day, kind, Rules(), BERLIN)
    assert found.seconds == length * 3600
    assert found.starts_at <= day < found.ends_at
    assert found.starts_at.astimezone(BERLIN).hour == 0


def test_a_tariff_weighs_models_and_peak_hours_and_adds_up_where_clocks_change() -> None:
    rules = Rules(weights={"A100": 250}, peak_percent=150, peak_from=0, peak_to=4, peak_days=(6,))
    price = tariff.price(rules, ["A100", "A6000"], BERLIN)
    night = Window(datetime(2026, 10, 24, 21, tzinfo=UTC), datetime(2026, 10, 25, 6, tzinfo=UTC))
    assert price.cost(night) == round(3.5 * (4 + 5 * 1.5) * 3600), "2:00 to 3:00 came twice: five peak hours of nine"
    middle = datetime(2026, 10, 25, 1, 17, 3, tzinfo=UTC)
    parts = price.cost(Window(night.starts_at, middle)) + price.between(night.starts_at, middle, night.ends_at)
    assert parts == price.cost(night)
    until = price.affordable_until(night.starts_at, night.starts_at, 100_000, night.ends_at)
    assert price.cost(Window(night.starts_at, until)) <= 100_000
    assert price.cost(Window(night.starts_at, until + timedelta(seconds=1))) > 100_000


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"max_hours": 0}, "max_hours"),
        ({"max_gpus": True}, "max_gpus"),
        ({"far_days": 3}, "far_hours"),
        ({"late_percent": 50}, "late_hours"),
        ({"peak_percent": 150, "peak_from": 18, "peak_to": 18}, "peak_to"),
        ({"min_minutes": 121, "max_hours": 2}, "min_minutes"),
        ({"weights": {"A100": 1001}}, "weight:A100"),
        ({"peak_days": [7]}, "peak_days"),
    ],
)
def test_rules_that_make_no_sense_name_their_field(values: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        terms.checked(values)
    assert refused.value.field == field


def past(number: int, start: float, length: float, *, made: float, gpus: int = 1, **values: Any) -> Past:
    window = hours(start, length)
    models = ("A6000",) * gpus
    return Past(number, 1, "Li Wei", window, models, "lab01", NOW + made * HOUR, window.ends_at, paid=3600, **values)


def test_a_trial_replays_the_bookings_in_the_order_they_were_made() -> None:
    rules = Rules(gpus_at_once=2)
    first, second = past(1, 10, 4, made=0, gpus=2), past(2, 12, 4, made=1)
    third = past(3, 14, 2, made=2)  # would clash with the second one only, which would not have been made
    result = trial.replay([third, first, second], rules, NOW, BERLIN)
    assert [verdict.past.booking_id for verdict in result.verdicts] == [2]
    assert (result.looked_at, result.by_rule, result.by_person) == (3, [("gpus_at_once", 1)], [("Li Wei", 1)])
    assert (result.paid, result.would_pay) == (3 * 3600, 2 * 4 * 3600 + 2 * 3600)


def test_what_was_cancelled_or_given_back_by_then_is_not_held_against_a_booking() -> None:
    rules = Rules(gpus_at_once=1)
    cancelled = past(1, 10, 4, made=0, cancelled_at=NOW + 1 * HOUR)
    assert not trial.replay([cancelled, past(2, 10, 4, made=2)], rules, NOW, BERLIN).verdicts
    assert trial.replay([cancelled, past(2, 10, 4, made=0.5)], rules, NOW, BERLIN).verdicts
    long_ago = past(1, -5, 20, made=-6, released_at=NOW - HOUR)
    early = Past(**{**vars(long_ago), "ends_at": NOW - HOUR})
    result = trial.replay([early, past(2, 1, 4, made=0)], rules, NOW, BERLIN)
    assert (result.looked_at, result.verdicts) == (1, []), "only what was made since counts, the rest is there"
    assert trial.replay([long_ago, past(2, 1, 4, made=0)], rules, NOW, BERLIN).verdicts


def test_the_stored_form_keeps_only_what_is_set(app: Flask) -> None:
    stored = terms.checked({"hours_week": 20, "models": [], "weights": {}, "hosts": ["lab02", "lab01"]})
    assert stored == {"hours_week": 20, "hosts": ["lab01", "lab02"]}
    assert terms.over(Rules(max_hours=9), stored | {"from_the_future": 1}) == Rules(
        max_hours=9, hours_week=20, hosts=("lab01", "lab02")
    )
