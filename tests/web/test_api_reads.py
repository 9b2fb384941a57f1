"""What can only be read over the API, and its own description."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from flask import Flask
from openapi_spec_validator import validate

from app.extensions import db
from app.models import Allocation, GpuState
from app.web.api.spec import ERRORS
from tests.factories import gpus_of, make_admin, make_booking, make_host, make_instance, make_pending, make_user
from tests.page import Client
from tests.web.caller import Caller, caller

NOW = datetime(2026, 11, 24, 4, 0, tzinfo=UTC)


def test_gpus(client: Client) -> None:
    host = make_host("ws1", gpus=2, model="RTX 4090")
    gpus = gpus_of(host)
    gpus[1].state = GpuState.MAINTENANCE
    found = caller(client, make_user()).get("/gpus").json
    first = {"host": "ws1", "model": "RTX 4090", "pci_address": "0000:01:00.0", "minor": 0, "state": "in_service"}
    assert found[0] == {"id": gpus[0].id, **first}
    assert (found[1]["minor"], found[1]["state"]) == (1, "maintenance")


def test_machines_are_ones_own(client: Client) -> None:
    user, admin, host = make_user(), make_admin(), make_host("ws1")
    make_instance(user, host, "mine")
    make_instance(admin, host, "theirs")
    person, boss = caller(client, user), caller(client, admin)
    assert [one["name"] for one in person.get("/instances").json] == ["mine"]
    shown = {"host": "ws1", "owner": user.username, "status": "running", "cpus": 4}
    assert person.get("/instances").json[0] | shown == person.get("/instances").json[0]
    assert [one["name"] for one in boss.get("/instances").json] == ["theirs"]
    assert [one["name"] for one in boss.get("/instances?all=1").json] == ["mine", "theirs"]


@pytest.mark.parametrize("what", ["rdp", "ssh-config"])
def test_machines_have_no_way_in_yet_and_say_so(client: Client, what: str) -> None:
    user, host = make_user(), make_host()
    make_instance(user, host, "mine")
    make_instance(make_user(), host, "theirs")
    person = caller(client, user)
    answer = person.get(f"/instances/mine/{what}")
    assert answer.status == 409
    assert "set up yet" in answer.json["detail"]
    assert answer.json["next_free"] is None
    for name in ("theirs", "nothing", "a%00b", "%F0%9F%92%A9", "x" * 500):
        assert person.get(f"/instances/{name}/{what}").status == 404


def test_quota_in_hours(client: Client, freeze) -> None:
    freeze(NOW)
    user, gpus = make_user(hours=10), gpus_of(make_host())
    make_booking(user, gpus[:2], NOW + timedelta(hours=1), NOW + timedelta(hours=1, minutes=45))
    found = caller(client, user).get("/quota").json
    assert found == {"granted": 10.0, "held": 1.5, "used": 0.0, "free": 8.5}


def test_usage_counts_what_lies_in_the_span_and_is_past(client: Client, freeze) -> None:
    freeze(NOW)
    user, gpus = make_user(), gpus_of(make_host())
    booking = make_booking(user, gpus[:2], NOW - timedelta(hours=2), NOW + timedelta(hours=2))
    make_booking(make_user(), gpus[2:3], NOW - timedelta(hours=2), NOW)
    one = db.session.scalars(db.select(Allocation).where(Allocation.booking_id == booking.id)).first()
    assert one is not None
    one.attached_at = NOW - timedelta(hours=1, minutes=30)
    person = caller(client, user)
    [used] = person.get("/usage").json
    assert (used["booking"], used["reserved_hours"], used["attached_hours"]) == (booking.id, 4.0, 1.5)
    assert (used["reserved_seconds"], used["attached_seconds"], used["busy_seconds"]) == (14400, 5400, None)
    [used] = person.get("/usage?from=2026-11-24T01:00:00Z&to=2026-11-24T03:00:00Z").json
    assert (used["reserved_hours"], used["attached_hours"]) == (2.0, 0.5)
    assert person.get("/usage?from=2026-11-25T00:00:00Z&to=2026-11-26T00:00:00Z").json == []
    assert person.get("/usage?from=2026-11-25T00:00:00Z&to=2026-11-24T00:00:00Z").fields() == ["to"]
    assert person.get("/usage?from=1971-01-01T00:00:00Z").fields() == ["from"], "that costs seconds of a processor"
    assert len(caller(client, make_admin()).get("/usage?all=1").json) == 2


def test_usage_has_no_booking_that_has_not_begun(client: Client, freeze) -> None:
    freeze(NOW)
    user, gpus = make_user(), gpus_of(make_host())
    past = make_booking(user, gpus[:1], NOW - timedelta(hours=2), NOW - timedelta(hours=1))
    make_booking(user, gpus[:1], NOW + timedelta(hours=1), NOW + timedelta(hours=3))
    person = caller(client, user)
    assert [one["booking"] for one in person.get("/usage?to=2026-11-25T00:00:00Z").json] == [past.id]
    assert person.get("/usage?from=2026-11-24T06:00:00Z&to=2026-11-25T00:00:00Z").json == []


def test_the_description_is_valid_and_open(client: Client) -> None:
    answer = Caller(client, "").get("/openapi.json")
    assert answer.status == 200
    validate(answer.json)


def test_the_description_has_every_route_with_its_answers(app: Flask, client: Client) -> None:
    document = Caller(client, "").get("/openapi.json").json
    described = {(path, method) for path, methods in document["paths"].items() for method in methods}
    routes = set()
    for rule in app.url_map.iter_rules():
        if rule.endpoint.startswith("api."):
            path = re.sub(r"<(?:[^<>:]*:)?(\w+)>", r"{\1}", rule.rule)
            routes |= {(path, method.lower()) for method in rule.methods or () if method not in {"HEAD", "OPTIONS"}}
    assert described == routes
    for (path, method), operation in ((key, document["paths"][key[0]][key[1]]) for key in described):
        assert "security" in operation, path
        if operation["security"]:
            assert {"401", "403", "422", "429", "500", "503"} <= set(operation["responses"]), (path, method)
        for status, response in operation["responses"].items():
            if int(status) >= 400:
                assert int(status) in ERRORS
                assert list(response["content"]) == ["application/problem+json"], (path, method, status)
    names = [document["paths"][path][method]["operationId"] for path, method in described]
    assert len(names) == len(set(names))


def test_answers_are_as_described(client: Client) -> None:
    from openapi_schema_validator import OAS31Validator

    user, host = make_user(), make_host()
    make_instance(user, host)
    make_booking(user, gpus_of(host)[:1], datetime.now(UTC), datetime.now(UTC) + timedelta(hours=1))
    person = caller(client, user)
    document = person.get("/openapi.json").json
    seen = 0
    for path, methods in document["paths"].items():
        if "get" not in methods or "{" in path or path.endswith("openapi.json"):
            continue
        schema = methods["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        answer = person.get(path.removeprefix("/api/v1"))
        OAS31Validator({"components": document["components"], **schema}).validate(answer.json)
        seen += 1
    assert seen == 7


def test_who_waits_has_no_quota_to_read(client: Client) -> None:
    pending = make_pending()
    assert pending.account_id is None
    assert caller(client, pending).get("/quota").status == 401
