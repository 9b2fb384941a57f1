"""Series over the API."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from app.extensions import db
from app.models import Booking
from tests.factories import make_host, make_user
from tests.page import Client
from tests.web.caller import Caller, caller

NOW = datetime(2026, 11, 24, 4, 0, tzinfo=UTC)  # Tuesday 12:00 in the lab
NIGHTS = {"count": 2, "weekdays": [0, 1, 2, 3, 4], "start_time": "20:00", "end_time": "08:00", "until": "2026-11-27"}


@pytest.fixture
def person(client: Client, freeze, monkeypatch: pytest.MonkeyPatch) -> Caller:
    freeze(NOW)
    monkeypatch.setattr("app.queue.wake", lambda _host: None)
    make_host("ws1", gpus=2)
    return caller(client, make_user("liwei", hours=100))


def test_made_read_and_given_back(person: Caller) -> None:
    made = person.post("/series", NIGHTS, headers={"Idempotency-Key": "nights"})
    assert made.status == 201, made.json
    assert [one["starts_at"] for one in made.json["bookings"]] == [
        f"2026-11-{day}T12:00:00Z" for day in (24, 25, 26, 27)
    ]
    assert (made.json["zone"], made.json["start_time"], made.json["end_time"]) == ("Asia/Shanghai", "20:00", "08:00")
    path = made.headers["Location"].removeprefix("/api/v1")
    assert person.post("/series", NIGHTS, headers={"Idempotency-Key": "nights"}).json["id"] == made.json["id"]
    assert person.get("/quota").json["free"] == 4
    assert person.get(path).json["bookings"] == made.json["bookings"]
    assert [one["id"] for one in person.get("/series").json] == [made.json["id"]]
    gone = person.delete(f"{path}?from=2026-11-26T00:00:00Z")
    assert [one["phase"] for one in gone.json["bookings"]] == ["upcoming"] * 2 + ["cancelled"] * 2
    assert person.get("/quota").json["free"] == 52
    assert person.delete(path).status == 200
    assert person.delete(path).json["code"] == "rule"


def test_all_or_none_or_those_that_fit(person: Caller) -> None:
    body = {**NIGHTS, "until": "2026-12-04"}
    shown = person.post("/series/preview", body)
    assert shown.status == 200, shown.json
    assert (len(shown.json["fits"]), shown.json["gpu_hours"], shown.json["free"]) == (4, 96, 100)
    assert {one["code"] for one in shown.json["refused"]} == {"quota"}
    none = person.post("/series", body)
    assert (none.status, none.json["code"]) == (409, "series")
    assert none.json["detail"] == "5 of 9 bookings are not possible."
    assert person.get("/series").json == []
    made = person.post("/series", {**body, "book": "fitting"})
    assert [one["starts_at"] for one in made.json["bookings"]] == [one["starts_at"] for one in shown.json["fits"]]
    assert len(made.json["refused"]) == 5


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"weekdays": []}, "weekdays"),
        ({"weekdays": [7]}, "weekdays.0"),
        ({"start_time": "8"}, "start_time"),
        ({"end_time": "24:30"}, "end_time"),
        ({"until": "2026-02-30"}, "until"),
        ({"until": "2026-11-01"}, "until"),
        ({"until": "2027-11-01"}, "until"),
        ({"zone": "../etc/passwd"}, "zone"),
        ({"note": "a\nb"}, "note"),
        ({"note": "x" * 300}, "note"),
        ({"book": "half"}, "book"),
        ({"count": None}, ""),
    ],
)
def test_bad_input_names_its_field(person: Caller, changes: dict[str, Any], field: str) -> None:
    assert person.post("/series", NIGHTS | changes).fields() == [field]
    assert db.session.scalar(db.select(db.func.count(Booking.id))) == 0
