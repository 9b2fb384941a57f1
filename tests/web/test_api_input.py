"""Bad input to the API: each a clear 4xx that names the field, nothing changed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.extensions import db
from app.models import Booking, GpuState, Policy
from tests.factories import gpus_of, make_host, make_user
from tests.page import Client
from tests.web.caller import Caller, caller

NOW = datetime(2026, 11, 24, 4, 0, tzinfo=UTC)


def at(hours: float) -> str:
    return (NOW + timedelta(hours=hours)).isoformat().replace("+00:00", "Z")


@pytest.fixture
def person(client: Client, freeze) -> Caller:
    freeze(NOW)
    return caller(client, make_user())


@pytest.fixture
def gpu() -> int:
    return gpus_of(make_host(gpus=2))[0].id


def good(gpu: int, **changes: Any) -> dict[str, Any]:
    return {"gpus": [gpu], "starts_at": at(1), "ends_at": at(2)} | changes


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"ends_at": at(1)}, "ends_at"),  # empty
        ({"starts_at": at(3)}, "ends_at"),  # reversed
        ({"starts_at": at(-2)}, "starts_at"),  # past
        ({"ends_at": at(1 + 73)}, ""),  # too long
        ({"starts_at": at(24 * 28), "ends_at": at(24 * 28 + 1)}, ""),  # beyond the horizon
        ({"ends_at": at(24 * 400)}, "ends_at"),
        ({"starts_at": "2026-11-24T05:00:00"}, "starts_at"),
        ({"ends_at": "2026-11-24T06:00:00"}, "ends_at"),
        ({"ends_at": "2026-11-24"}, "ends_at"),
        ({"ends_at": "tomorrow"}, "ends_at"),
        ({"ends_at": 1795500000}, "ends_at"),
        ({"ends_at": None}, "ends_at"),
        ({"ends_at": "9999-12-31T23:59:59-23:59"}, "ends_at"),
        ({"ends_at": "0001-01-01T00:00:00+14:00"}, "ends_at"),
        ({"ends_at": "2026-11-24T06:00:00Z" + "0" * 10_000}, "ends_at"),
        ({"gpus": []}, "gpus"),
        ({"gpus": [0]}, "gpus.0"),
        ({"gpus": [-1]}, "gpus.0"),
        ({"gpus": [2**63]}, "gpus.0"),
        ({"gpus": [2**62]}, "gpus"),
        ({"gpus": ["1"]}, "gpus.0"),
        ({"gpus": [1.5]}, "gpus.0"),
        ({"gpus": [True]}, "gpus.0"),
        ({"gpus": 1}, "gpus"),
        ({"gpus": list(range(1, 66))}, "gpus"),
        ({"gpus": None}, ""),
        ({"count": 1}, ""),
        ({"model": "x"}, ""),
        ({"gpus": None, "count": 0}, "count"),
        ({"gpus": None, "count": "2"}, "count"),
        ({"gpus": None, "count": 65}, "count"),
        ({"gpus": None, "count": 1, "model": "no such model"}, "model"),
        ({"gpus": None, "count": 1, "model": "a\u0000b"}, "model"),
        ({"gpus": None, "count": 1, "host": "x" * 200}, "host"),
        ({"note": "x" * 201}, "note"),
        ({"note": "two\nlines"}, "note"),
        ({"note": "nul\u0000"}, "note"),
        ({"note": "half \ud800"}, "note"),
        ({"note": ["x"]}, "note"),
        ({"owner": "somebody"}, "owner"),
        ({"user_id": 1}, "user_id"),
    ],
    ids=lambda value: ascii(value)[:60],
)
def test_what_cannot_be_booked(person: Caller, gpu: int, changes: dict[str, Any], field: str) -> None:
    answer = person.post("/bookings", good(gpu, **changes))
    assert answer.fields() == [field], answer.json
    assert all(error["message"] for error in answer.json["errors"])
    assert db.session.scalar(db.select(db.func.count()).select_from(Booking)) == 0


def test_a_time_without_a_zone_is_told_so(person: Caller, gpu: int) -> None:
    answer = person.post("/bookings", good(gpu, starts_at="2026-11-24T05:00:00"))
    assert "time zone" in answer.json["errors"][0]["message"]
    assert person.post("/bookings", good(gpu, starts_at="2026-11-24T13:00:00+08:00")).json["starts_at"] == at(1)
    assert len(person.get("/bookings?from=2026-11-24T13:00:00+08:00&to=2026-11-24T14:00:00%2B08:00").json) == 1


def test_gpus_that_cannot_be_taken_together_or_at_all(person: Caller, gpu: int) -> None:
    other = gpus_of(make_host(gpus=1))[0]
    assert person.post("/bookings", good(gpu, gpus=[gpu, other.id])).fields() == ["gpus"]
    other.state = GpuState.MAINTENANCE
    refused = person.post("/bookings", good(other.id))
    assert (refused.status, refused.json["rule"]) == (422, "out_of_service")
    assert person.post("/bookings", {"count": 3, "starts_at": at(1), "ends_at": at(2)}).json["rule"] == "host_size"
    rules = db.session.get_one(Policy, 1)
    rules.max_gpus = 1
    assert person.post("/bookings", {"count": 2, "starts_at": at(1), "ends_at": at(2)}).json["rule"] == "max_gpus"


def test_markup_in_a_note_is_just_text(person: Caller, gpu: int) -> None:
    note = '<script>alert("1")</script> & "quoted"'
    made = person.post("/bookings", good(gpu, note=note))
    assert (made.status, made.json["note"]) == (201, note)


@pytest.mark.parametrize(
    ("body", "media", "status"),
    [
        (b"{", "application/json", 400),
        (b"", "application/json", 422),
        (b"[]", "application/json", 400),
        (b"null", "application/json", 400),
        (b'"text"', "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b"[" * 50_000, "application/json", 400),
        (b"x" * 65_537, "application/json", 413),
        (b" " * 10_000_000, "application/json", 413),
        (b"{}", "text/plain", 415),
        (b"gpus=1", "application/x-www-form-urlencoded", 415),
        (b"{}", "", 415),
    ],
    ids=lambda value: ascii(value)[:30],
)
def test_bodies_that_are_no_json_object(person: Caller, body: bytes, media: str, status: int) -> None:
    for path in ("/bookings", "/bookings/1/extend"):
        assert person("POST", path, data=body, content_type=media).status == status


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("frm=2026-11-24T00:00:00Z", "frm"),
        ("from=2026-11-24T00:00:00", "from"),
        ("from=yesterday", "from"),
        ("from=2026-11-24T00:00:00Z&to=2026-11-23T00:00:00Z", "to"),
        ("from=2026-11-24T00:00:00Z&from=2026-11-25T00:00:00Z", "from"),
        ("mine=perhaps", "mine"),
    ],
)
def test_queries_that_cannot_be_meant(person: Caller, query: str, field: str) -> None:
    assert person.get(f"/bookings?{query}").fields() == [field]


@pytest.mark.parametrize("key", ["", "x" * 65, "two words", "é"])
def test_idempotency_keys_that_cannot_be(person: Caller, gpu: int, key: str) -> None:
    answer = person.post("/bookings", good(gpu), headers={"Idempotency-Key": key})
    assert answer.fields() == ["Idempotency-Key"]


def test_release_takes_no_fields(person: Caller) -> None:
    assert person.post("/bookings/1/release", {"ends_at": at(1)}).fields() == ["ends_at"]
    assert person.post("/bookings/1/release", {}).status == 404
    assert person.post("/bookings/1/release").status == 404
