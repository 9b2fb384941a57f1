from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from flask import Flask

from app.errors import InvalidInput
from app.extensions import db
from app.models import Policy
from app.services import audit, policy
from app.services.policy import DAY
from app.services.rules import limits, terms
from app.services.windows import Window
from tests.factories import make_admin

NOW = datetime(2026, 11, 24, 4, tzinfo=UTC)
HOUR = timedelta(hours=1)
SAME = {"horizon_days": 28, "max_hours": 72, "max_gpus": 8}


@pytest.fixture
def rules(app: Flask, freeze: Callable[[datetime], None]) -> Policy:
    freeze(NOW)
    return policy.current()


def test_exactly_as_long_and_as_late_as_allowed(rules: Policy) -> None:
    assert not [*limits.of_window(rules, Window(NOW, NOW + 72 * HOUR), NOW)]
    assert not [*limits.of_window(rules, Window(NOW + timedelta(days=27), NOW + timedelta(days=28)), NOW)]
    assert not [*limits.of_count(rules, 8)]


@pytest.mark.parametrize(
    ("window", "rule", "limit"),
    [
        (Window(NOW, NOW + 72 * HOUR + timedelta(seconds=1)), "max_hours", 72),
        (Window(NOW + timedelta(days=27), NOW + timedelta(days=28, seconds=1)), "horizon_days", 28),
    ],
)
def test_a_second_more_is_refused_with_the_limit(rules: Policy, window: Window, rule: str, limit: int) -> None:
    (refusal,) = limits.of_window(rules, window, NOW)
    assert refusal.details == {"rule": rule, "limit": limit}
    assert refusal.hint


def test_too_many_gpus(rules: Policy) -> None:
    (refusal,) = limits.of_count(rules, 9)
    assert "8 GPUs at most; you asked for 9" in refusal.brief


def test_a_change_is_on_record_with_before_and_after(rules: Policy) -> None:
    policy.change(make_admin("root"), self_service=False, **{**SAME, "max_hours": 24})
    assert (policy.current().max_hours, policy.current().self_service) == (24, False)
    (event,) = audit.recent(target="policy")
    assert event.actor == "root"
    assert event.details == {"self_service": False, "changed": {"max_hours": [72, 24]}}


def test_what_is_not_named_stays_and_a_switch_is_on_record_too(rules: Policy) -> None:
    boss = make_admin("root")
    assert (rules.grace_seconds, rules.force_stop) == (20, False)
    policy.change(boss, self_service=True, force_stop=True, grace_seconds=0)
    policy.change(boss, self_service=True, max_gpus=3)
    assert (policy.current().grace_seconds, policy.current().force_stop) == (0, True)
    assert [event.details["changed"] for event in audit.recent(target="policy")] == [
        {"max_gpus": [8, 3]}, {"force_stop": [False, True], "grace_seconds": [20, 0]},
    ]  # fmt: skip


@pytest.mark.parametrize(("field", "value"), [(name, bound) for name, (low, high) in policy.LIMITS.items()
                                              for bound in (low - 1, high + 1)])  # fmt: skip
def test_out_of_bounds_changes_nothing(rules: Policy, field: str, value: int) -> None:
    with pytest.raises(InvalidInput) as refused:
        policy.change(make_admin("root"), self_service=False, **{**SAME, "max_gpus": 3, field: value})
    assert refused.value.field == field
    assert (policy.current().max_gpus, policy.current().self_service) == (8, True)
    assert audit.recent(target="policy") == []


def test_there_is_one_row_of_rules(rules: Policy) -> None:
    for row in ("(2)", "(1)"):
        with pytest.raises(sa.exc.IntegrityError), db.session.begin_nested():
            db.session.execute(sa.text(f"INSERT INTO policies (id) VALUES {row}"))


@pytest.mark.parametrize(
    ("new", "field"),
    [
        ({"minute_days": 7, "idle_held_minutes": 6 * DAY}, ""),
        ({"minute_days": 7, "idle_held_minutes": 6 * DAY + 1}, "idle_held_minutes"),
        ({"idle_held_minutes": 4 * DAY + 1}, "idle_held_minutes"),
        ({"minute_days": 3}, "minute_days"),
        ({"minute_days": 4}, ""),
        ({"minute_days": 2, "idle_held_minutes": 0}, ""),
    ],
)
def test_what_idle_needs_to_know_is_kept(rules: Policy, new: dict[str, int], field: str) -> None:
    boss = make_admin("root")
    policy.change(boss, self_service=True, minute_days=5, idle_held_minutes=3 * DAY)
    if not field:
        policy.change(boss, self_service=True, **new)
        return
    with pytest.raises(InvalidInput) as refused:
        policy.change(boss, self_service=True, **new)
    assert (refused.value.field, rules.minute_days, rules.idle_held_minutes) == (field, 5, 3 * DAY)
    rules.minute_days = 2  # as an older version left it
    policy.change(boss, self_service=True, minute_days=2, idle_held_minutes=3 * DAY, max_gpus=3)
    assert policy.current().max_gpus == 3


def test_what_is_idle_without_memory_held_is_always_known() -> None:
    """Neither the lab nor a class can have it so that it would have to be held against what is kept."""
    longest = max(policy.LIMITS["idle_minutes"][1], terms.BOUNDS["idle_minutes"][1])
    assert longest <= (policy.LIMITS["minute_days"][0] - 1) * DAY
