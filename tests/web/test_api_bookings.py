"""Bookings over the API: made, read, changed, given back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app import queue
from app.extensions import db
from app.models import Account, Booking, Gpu, User
from app.services import quota
from tests.factories import gpus_of, make_admin, make_booking, make_host, make_user
from tests.page import Client
from tests.web.caller import Caller, caller

NOW = datetime(2026, 11, 24, 4, 0, tzinfo=UTC)


def at(hours: float) -> str:
    return (NOW + timedelta(hours=hours)).isoformat().replace("+00:00", "Z")


@pytest.fixture(autouse=True)
def now(freeze) -> None:
    freeze(NOW)


@pytest.fixture
def wakes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hosts that were woken."""
    woken: list[str] = []
    monkeypatch.setattr(queue, "wake", woken.append)
    return woken


@pytest.fixture
def user() -> User:
    return make_user("liwei", hours=100)


@pytest.fixture
def person(client: Client, user: User) -> Caller:
    return caller(client, user)


@pytest.fixture
def gpus() -> list[Gpu]:
    return gpus_of(make_host("ws1", gpus=4))


def book(person: Caller, gpus: list[Gpu], start: float, end: float, **more: Any) -> Any:
    answer = person.post(
        "/bookings", {"gpus": [gpu.id for gpu in gpus], "starts_at": at(start), "ends_at": at(end), **more}
    )
    assert answer.status == 201, answer.json
    return answer.json


def held(user: User) -> float:
    return quota.balance(user.account_id or 0).held / 3600


def test_a_booking_is_made_and_read(person: Caller, user: User, gpus: list[Gpu]) -> None:
    answer = person.post(
        "/bookings",
        {"gpus": [gpus[2].id, gpus[0].id], "starts_at": at(1), "ends_at": at(3), "note": "fine-tuning"},
    )
    assert answer.status == 201
    made = answer.json
    assert answer.headers["Location"].endswith(f"/api/v1/bookings/{made['id']}")
    assert made["gpus"] == sorted([gpus[0].id, gpus[2].id])
    assert [one["pci_address"] for one in made["allocations"]] == ["0000:01:00.0", "0000:03:00.0"]
    shown = {"starts_at": at(1), "ends_at": at(3), "phase": "upcoming", "host": "ws1", "owner": "Liwei", "mine": True}
    assert made | shown | {"note": "fine-tuning", "gpu_hours": 4.0} == made
    assert person.get(f"/bookings/{made['id']}").json == made
    assert held(user) == 4


def test_it_costs_few_queries(person: Caller, gpus: list[Gpu], count_queries) -> None:
    book(person, gpus[:1], 1, 2)
    body = {"gpus": [gpu.id for gpu in gpus[:2]], "starts_at": at(3), "ends_at": at(4)}
    with count_queries() as queries:
        assert person.post("/bookings", body).status == 201
    own = [query for query in queries if "SAVEPOINT" not in query]
    assert len(own) <= 9, own


def test_times_snap_outwards_and_now_may_be_left_out(person: Caller, gpus: list[Gpu]) -> None:
    made = person.post("/bookings", {"gpus": [gpus[0].id], "ends_at": "2026-11-24T04:20:00Z"}).json
    assert (made["starts_at"], made["ends_at"], made["phase"]) == (at(0), at(0.5), "running")


def test_taken_says_by_whom_and_what_is_free(person: Caller, client: Client, gpus: list[Gpu]) -> None:
    other = caller(client, make_user("chenyu"))
    book(other, gpus[:1], 1, 3)
    refused = person.post("/bookings", {"gpus": [gpus[0].id], "starts_at": at(2), "ends_at": at(4)})
    assert (refused.status, refused.json["code"]) == (409, "taken")
    assert refused.json["next_free"] == at(3)
    assert refused.json["clashes"] == [
        {"gpu": "GPU 0", "host": "ws1", "owner": "Chenyu", "starts_at": at(1), "ends_at": at(3)}
    ]
    elsewhere = next(one for one in refused.json["alternatives"] if one["kind"] == "elsewhere")
    assert elsewhere | {"gpus": [gpus[1].id], "starts_at": at(2), "ends_at": at(4)} == elsewhere
    again = {key: elsewhere[key] for key in ("gpus", "starts_at", "ends_at")}
    assert person.post("/bookings", again).status == 201


def test_any_of_a_model(person: Caller, gpus: list[Gpu]) -> None:
    make_host("ws2", gpus=2, model="RTX 4090")
    ask = {"starts_at": at(1), "ends_at": at(2)}
    made = person.post("/bookings", ask | {"count": 2, "model": "RTX 4090"}).json
    assert (made["host"], len(made["gpus"])) == ("ws2", 2)
    refused = person.post("/bookings", ask | {"count": 1, "model": "RTX 4090"})
    assert (refused.status, refused.json["next_free"]) == (409, at(2))
    assert person.post("/bookings", ask | {"count": 1, "host": "ws1"}).json["host"] == "ws1"


def test_no_more_than_the_quota(person: Caller, user: User, gpus: list[Gpu]) -> None:
    account = db.session.get_one(Account, user.account_id)
    quota.grant(account, -98, actor="test")
    refused = person.post("/bookings", {"gpus": [gpus[0].id], "starts_at": at(1), "ends_at": at(4)})
    assert (refused.status, refused.json["code"]) == (422, "quota")
    assert (refused.json["needed_hours"], refused.json["free_hours"]) == (3.0, 2.0)
    assert "3 GPU-hours" in refused.json["detail"]


def test_the_same_request_twice_books_once(person: Caller, client: Client, user: User, gpus: list[Gpu]) -> None:
    body = {"gpus": [gpus[0].id], "starts_at": at(1), "ends_at": at(2)}
    first, second = (person.post("/bookings", body, headers={"Idempotency-Key": "one"}) for _ in range(2))
    assert (first.status, second.status) == (201, 201)
    assert first.json == second.json
    assert held(user) == 1
    other = caller(client, make_user())  # somebody else's key is another key
    assert other.post("/bookings", body, headers={"Idempotency-Key": "one"}).status == 409


def test_everybody_sees_who_has_what_and_only_ones_own_notes(
    person: Caller, client: Client, user: User, gpus: list[Gpu]
) -> None:
    mine = book(person, gpus[:1], 1, 2, note="mine")
    theirs = book(caller(client, make_user("chenyu")), gpus[1:2], 3, 4, note="private")
    found = person.get(f"/bookings?from={at(0)}&to={at(10)}").json
    assert [(one["id"], one["owner"], one["note"], one["mine"]) for one in found] == [
        (mine["id"], "Liwei", "mine", True),
        (theirs["id"], "Chenyu", None, False),
    ]
    assert [one["id"] for one in person.get(f"/bookings?from={at(0)}&to={at(3)}").json] == [mine["id"]]  # half open
    assert [one["id"] for one in person.get("/bookings?mine=1").json] == [mine["id"]]
    admin = caller(client, make_admin())
    assert [one["note"] for one in admin.get("/bookings").json] == ["mine", "private"]


def test_what_is_somebody_elses_is_not_there(person: Caller, client: Client, gpus: list[Gpu]) -> None:
    other = caller(client, make_user())
    made = book(person, gpus[:1], 1, 2)
    path = f"/bookings/{made['id']}"
    refusals = [
        other.get(path),
        other.delete(path),
        other.post(f"{path}/extend", {"ends_at": at(3)}),
        other.post(f"{path}/release"),
        other.get("/bookings/999999"),
    ]
    assert {answer.status for answer in refusals} == {404}
    assert person.get(path).json == made
    assert caller(client, make_admin()).get(path).json["mine"] is False


def test_delete_cancels_what_has_not_started(person: Caller, user: User, gpus: list[Gpu]) -> None:
    made = book(person, gpus[:1], 1, 2)
    assert person.delete(f"/bookings/{made['id']}").json["phase"] == "cancelled"
    assert held(user) == 0
    again = person.delete(f"/bookings/{made['id']}")
    assert (again.status, again.json["rule"]) == (422, "phase")
    book(person, gpus[:1], 1, 2)  # free again


def test_delete_ends_what_runs(person: Caller, user: User, gpus: list[Gpu], freeze) -> None:
    made = book(person, gpus[:2], 0, 2)
    freeze(NOW + timedelta(hours=1))
    ended = person.delete(f"/bookings/{made['id']}").json
    assert (ended["phase"], ended["ends_at"], ended["released_at"]) == ("past", at(1), at(1))
    assert held(user) == 2


def test_release_is_for_what_runs(person: Caller, gpus: list[Gpu], freeze) -> None:
    made = book(person, gpus[:1], 1, 2)
    assert person.post(f"/bookings/{made['id']}/release").json["rule"] == "phase"
    freeze(NOW + timedelta(hours=1.5))
    assert person.post(f"/bookings/{made['id']}/release", {}).json["ends_at"] == at(1.5)


def test_the_end_moves(person: Caller, client: Client, user: User, gpus: list[Gpu]) -> None:
    made = book(person, gpus[:1], 0, 2)
    path = f"/bookings/{made['id']}/extend"
    assert person.post(path, {"ends_at": at(4)}).json["ends_at"] == at(4)
    assert held(user) == 4
    assert person.post(path, {"ends_at": at(1)}).json["ends_at"] == at(1)
    assert held(user) == 1
    book(caller(client, make_user()), gpus[:1], 2, 3)
    refused = person.post(path, {"ends_at": at(2.5)})
    assert (refused.status, refused.json["code"]) == (409, "taken")
    assert person.post(path, {"ends_at": "2026-11-24T09:00:00"}).fields() == ["ends_at"]
    assert person.post(path, {}).fields() == ["ends_at"]


def test_the_past_does_not_change(person: Caller, user: User, gpus: list[Gpu]) -> None:
    old = make_booking(user, gpus[:1], NOW - timedelta(hours=2), NOW - timedelta(hours=1))
    path = f"/bookings/{old.id}"
    for answer in (
        person.delete(path),
        person.post(f"{path}/release"),
        person.post(f"{path}/extend", {"ends_at": at(1)}),
    ):
        assert (answer.status, answer.json["rule"]) == (422, "phase")


def test_an_agent_is_woken_for_what_it_must_act_on_soon(person: Caller, gpus: list[Gpu], wakes: list[str]) -> None:
    later = book(person, gpus[:1], 1, 2)
    person.delete(f"/bookings/{later['id']}")
    assert wakes == []
    soon = book(person, gpus[:1], 0, 2)
    assert wakes == ["ws1"]
    person.post(f"/bookings/{soon['id']}/extend", {"ends_at": at(1)})
    person.delete(f"/bookings/{soon['id']}")
    assert wakes == ["ws1"] * 3


def test_a_refused_booking_wakes_nobody(person: Caller, gpus: list[Gpu], wakes: list[str]) -> None:
    book(person, gpus[:1], 0, 2)
    person.post("/bookings", {"gpus": [gpus[0].id], "ends_at": at(1)})
    assert wakes == ["ws1"]


def test_too_many_for_one_answer(person: Caller, user: User, gpus: list[Gpu], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.web.api.bookings.MOST", 2)
    for hour in range(3):
        book(person, gpus[:1], hour + 1, hour + 2)
    assert person.get("/bookings").json["rule"] == "span"
    assert len(person.get(f"/bookings?from={at(1)}&to={at(3)}").json) == 2
    assert db.session.scalar(db.select(db.func.count()).select_from(Booking)) == 3
