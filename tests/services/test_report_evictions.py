"""Whose machine an eviction befell: the one that had the name at that moment, not the one that has it today."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import select

from app.extensions import db
from app.models import AuditEvent, Host, Instance, Operation, OperationKind, OperationState, User
from app.services.reports import evictions, targets
from app.services.reports.pieces import Scope
from app.services.reports.spans import Span
from tests.factories import make_host, make_instance, make_user
from tests.services.conftest import NOW

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
Seen = Callable[[datetime], str]


def _renamed(machine: Instance, at: datetime, old: str, new: str, **values: Any) -> Operation:
    """A machine that was renamed at a moment, done within the hour."""
    done = {"state": OperationState.DONE, "finished_at": at + HOUR} | values
    found = Operation(
        kind=OperationKind.RENAME,
        host_id=machine.host_id,
        instance_id=machine.id,
        created_at=at,
        details={"old": old, "new": new} | done.pop("details", {}),
        **done,
    )
    db.session.add(found)
    db.session.flush()
    return found


@pytest.fixture
def people(app: object) -> tuple[User, User]:
    return make_user("ann"), make_user("ben")


@pytest.fixture
def host(people: object) -> Host:
    return make_host("lab08")


@pytest.fixture
def seen() -> Seen:
    """Who is said to have the machine `x` in which a program was seen at a moment; "" for nobody."""

    def ask(at: datetime) -> str:
        facts = {"host": "lab08", "instance": "x", "process": 7, "name": "python"}
        event = AuditEvent(
            created_at=at, actor="agent:lab08", action="gpu.used_unbooked", target="gpu:1", details=facts
        )
        db.session.add(event)
        db.session.flush()
        span = Span(at, at + HOUR, ZoneInfo("UTC"), (), (at, at + HOUR))
        [one] = [one for one in evictions.newest(span, Scope(), 9) if one.at == at]
        return one.user.username if one.user else ""

    return ask


def test_a_namesake_that_was_there_under_another_name_is_not_blamed(
    people: tuple[User, User], host: Host, seen: Seen
) -> None:
    """Ann's x is y from day 2 on; Ben's z, as old as it, is x from day 3 on. Between the two, x was nobody's."""
    ann, ben = people
    anns = make_instance(ann, host, "y", created_at=NOW)
    bens = make_instance(ben, host, "x", created_at=NOW)
    _renamed(anns, NOW + 2 * DAY, "x", "y")
    _renamed(bens, NOW + 3 * DAY, "z", "x")
    hours = (-1, 1, 47, 48.5, 50, 72, 73)
    assert [seen(NOW + hour * HOUR) for hour in hours] == ["", "ann", "ann", "ann", "", "ben", "ben"]


def test_one_with_many_names_has_each_in_its_time(people: tuple[User, User], host: Host, seen: Seen) -> None:
    """Ann's is x, y, x and z; Ben's takes the name on day 9, and is deleted on day 10."""
    ann, ben = people
    anns = make_instance(ann, host, "z", created_at=NOW)
    for day, old, new in ((1, "x", "y"), (2, "y", "x"), (3, "x", "z")):
        _renamed(anns, NOW + day * DAY, old, new)
    make_instance(ben, host, "x", created_at=NOW + 9 * DAY, deleted_at=NOW + 10 * DAY)
    days = (0.5, 1.5, 2.5, 3.5, 9.5, 10.5)
    assert [seen(NOW + day * DAY) for day in days] == ["ann", "", "ann", "", "ben", ""]


def test_a_rename_that_failed_changed_nothing_and_one_under_way_is_of_the_same_machine(
    people: tuple[User, User], host: Host, seen: Seen
) -> None:
    """Of the second one only the start failed: its name was another one by then."""
    ann, _ben = people
    machine = make_instance(ann, host, "x", created_at=NOW)
    failed = {"state": OperationState.FAILED}
    _renamed(machine, NOW + DAY, "x", "w", **failed)
    assert [seen(NOW + day * DAY) for day in (0.5, 1.01, 1.5)] == ["ann"] * 3
    machine.name = "v"
    last = _renamed(machine, NOW + 2 * DAY, "x", "v", details={"renamed": True}, **failed)
    assert [seen(NOW + day * DAY) for day in (1.6, 2.01, 2.5)] == ["ann", "ann", ""]
    last.state, last.finished_at, last.details = OperationState.RUNNING, None, {"old": "x", "new": "v"}
    db.session.flush()
    assert seen(NOW + 2.6 * DAY) == "ann", "its host may know it by that name still"


def test_a_target_is_an_id_or_none(app: object) -> None:
    ids = {"gpu:7": 7, "gpu:007": 7, "gpu:123456789012345678": 123456789012345678, "gpu:1234567890123456789": None}
    ids |= dict.fromkeys(("gpu:", "gpu:7x", "gpu:-7", "gpu: 7", "gpu:7 ", "booking:7", "xgpu:7", "gpu", ""))
    for target in ids:
        db.session.add(AuditEvent(actor="agent:lab08", action="gpu.intruder", target=target))
    db.session.flush()
    query = select(AuditEvent.target, targets.number("gpu"))
    assert {row.target: row[1] for row in db.session.execute(query)} == ids
