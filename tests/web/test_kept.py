"""Signed out while typing: what was typed comes back in every form, to who typed it and to nobody else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import pytest

from app import clock
from app.extensions import db
from app.models import Booking, GpuState, User
from app.services import teams
from app.services.rules import classes
from app.web import kept
from app.web.filling import filled
from tests.factories import (
    gpus_of,
    make_admin,
    make_booking,
    make_host,
    make_instance,
    make_pending,
    make_template,
    make_user,
)
from tests.page import PASSWORD, Client, Form, Page

TYPED = "text", "search", "email", "number", "url", "tel", "date", "time"
PAGES = (
    "/bookings/{booking}/change",
    "/teams",
    "/teams/{team}",
    "/rules",
    "/rules/classes",
    "/rules/classes/{rules}",
    "/people",
    "/people/waiting",
    "/people/waiting/refuse",
    "/people/approve/several?who=waiting",
    "/people/member",
    "/settings",
    "/settings/keys",
    "/settings/notices",
    "/settings/calendars",
    "/machines/new",
    "/machines/box/care",
    "/machines/box/rename",
    "/machines/box/snapshots",
    "/hosts/lab03/shares/new",
    "/hosts/lab03/gpus/{held}/release",
    "/templates/new/recipe",
    "/templates/new/image",
    "/templates/new/machine",
    "/templates/{template}",
)


@pytest.fixture
def places(client: Client, woken: list[str]) -> dict[str, int]:
    """A lab with one of everything that has a form, seen by its admin."""
    boss = make_admin("boss")
    host = make_host("lab03", gpus=2, images=[{"alias": "ubuntu/24.04", "description": ""}])
    make_instance(boss, host, "box")
    member, start = make_user("member"), clock.now().replace(minute=0, second=0, microsecond=0) + timedelta(hours=2)
    make_pending("waiting")
    make_pending("another")
    team = teams.create(boss, "Vision", "boss", 20)
    teams.add(boss, team, "member")
    client.login_as(boss)
    gpus_of(host)[1].state = GpuState.QUARANTINE
    assert member.id
    assert not woken
    return {
        "booking": make_booking(boss, gpus_of(host)[:1], start, start + timedelta(hours=1)).id,
        "team": team.id,
        "rules": classes.default().id,
        "held": gpus_of(host)[1].id,
        "gpu": gpus_of(host)[0].id,
        "template": make_template(host).id,
    }


def typing(page: Page) -> list[Form]:
    """The forms of a page into which one types something that is no secret."""
    forms = [Form(page, element.xpath(".//button")[0]) for element in page.all("//main//form[@method='post']")]
    return [form for form in forms if fields(form)]


def fields(form: Form) -> list[str]:
    """What one types into."""
    there = [*form.element.xpath(".//input[@name]"), *form.element.xpath(".//textarea[@name]")]
    kinds = [(one.get("name"), one.get("type", "text") if one.tag == "input" else "text") for one in there]
    return [name for name, kind in kinds if kind in TYPED and name not in kept.GUARDS and not name.endswith("address")]


def back_in(client: Client, answer: Page, who: str) -> Page:
    """Whoever is sent to sign in does so; where that leads in the end."""
    page = client.submit(client.follow(answer).form("Sign in").fill(Username=who, Password=PASSWORD))
    while page.status in {302, 303}:
        page = client.follow(page)
    return page


def send(client: Client, form: Form, page: str, **values: str) -> Page:
    """Send a form when the session is gone."""
    client.raw.delete_cookie("session")
    return client.post(form.action, form.values | values, headers={"Referer": f"http://localhost{page}"})


@pytest.mark.parametrize("page", PAGES)
def test_what_was_typed_comes_back(client: Client, places: dict[str, int], page: str) -> None:
    path = page.format_map(places)
    forms = typing(client.get(path))
    assert forms, "a page without a form"
    for number, form in enumerate(forms):
        typed = {name: f'{number}7 "Ä<{name}' for name in fields(form)}
        shown = back_in(client, send(client, form, path, **typed), "boss")
        again = next(one for one in typing(shown) if one.action == form.action)
        assert {name: again.values[name] for name in typed} == typed
        others = [one for one in typing(shown) if one.action != form.action]
        assert not [one for one in others if any(value in typed.values() for value in map(str, one.values.values()))]


def test_ticks_and_choices_come_back_too(client: Client, places: dict[str, int]) -> None:
    path = f"/teams/{places['team']}"
    form = next(one for one in typing(client.get(path)) if one.action.endswith("/members/boss"))
    form.values.pop("owner")
    shown = back_in(client, send(client, form, path, hours="12"), "boss")
    again = next(one for one in typing(shown) if one.action == form.action)
    assert again.values.get("hours") == "12"
    assert not again.values.get("owner")
    path = "/templates/new/recipe"
    form = typing(client.get(path))[0]
    form.values |= {"recipe": "base", "extras": ["cuda"], "packages": "one\ntwo", "audience": "chosen"}
    again = typing(back_in(client, send(client, form, path), "boss"))[0]
    assert (again.values["recipe"], again.values["audience"]) == ("base", "chosen")
    assert again.values["extras"] in ("cuda", ["cuda"])
    assert again.values["packages"].split() == ["one", "two"]


def test_a_form_that_was_refused_before_comes_back_on_its_page(client: Client, places: dict[str, int]) -> None:
    """It was shown where it had been sent to, and that address cannot be asked for."""
    form = next(one for one in typing(client.get(f"/teams/{places['team']}")) if one.action.endswith("/members/member"))
    shown = back_in(client, send(client, form, form.action, hours="13"), "boss")
    assert shown.h1 == "Team Vision"
    assert next(one for one in typing(shown) if one.action == form.action).values["hours"] == "13"


@pytest.mark.parametrize("page", ["/teams/{team}", "/bookings/{booking}/change", "/settings", "/rules"])
def test_nobody_else_gets_it(client: Client, places: dict[str, int], page: str) -> None:
    path = page.format_map(places)
    form = typing(client.get(path))[0]
    name = fields(form)[0]
    asked = client.follow(send(client, form, path, **{name: "mine alone"}))
    assert "mine alone" not in asked.body
    shown = client.submit(asked.form("Sign in").fill(Username="member", Password=PASSWORD))
    while shown.status in {302, 303}:
        assert "mine" not in shown.location
        shown = client.follow(shown)
    assert "What was typed there was somebody else's." in shown.text
    assert "mine alone" not in shown.body


def test_who_typed_it_is_told_by_the_page_alone(client: Client, places: dict[str, int]) -> None:
    """A token that no signed-in person's page carries brings back nothing."""
    form = typing(client.get("/rules"))[0]
    client.raw.delete_cookie("session")
    form.values["csrf_token"] = client.csrf_token()
    answer = send(client, form, "/rules", max_hours="7777")
    assert parse_qs(urlsplit(answer.location).query) == {"next": ["/rules"]}
    assert places


def test_no_password_and_no_secret_comes_back(client: Client, places: dict[str, int]) -> None:
    page = client.get("/settings")
    form = next(one for one in (Form(page, b) for b in page.all("//main//form//button")) if "/password" in one.action)
    secret = {name: "do not tell" for name in form.values if name != "csrf_token"}
    assert kept.KEY not in send(client, form, "/settings", **secret).location
    client.login_as(db.session.scalars(db.select(User).where(User.username == "boss")).one())
    form = next(one for one in typing(client.get("/settings/notices")) if one.action.endswith("/services"))
    sent = send(client, form, "/settings/notices", address="json://token@example.org", name="Desk")
    shown = back_in(client, sent, "boss")
    again = next(one for one in typing(shown) if one.action == form.action)
    assert (again.values["name"], again.values.get("address", "")) == ("Desk", "")
    assert places


def test_what_is_too_long_for_an_address_is_left(client: Client, places: dict[str, int]) -> None:
    form = typing(client.get("/rules"))[0]
    noise = "".join(chr(0x4E00 + number * 7919 % 20000) for number in range(9000))
    assert len(send(client, form, "/rules", max_hours=noise).location) < 200
    assert places


def test_signed_out_twice_the_newest_comes_back(client: Client, places: dict[str, int]) -> None:
    sent, name = _sent(client, "First"), "name"
    first = back_in(client, sent, "boss")
    again = next(one for one in typing(first) if one.values.get(name) == "First")
    assert "nothing was changed. What you had typed is filled in again." in first.text
    kept_there = parse_qs(urlsplit(sent.location).query)["next"][0]
    shown = back_in(client, send(client, again, kept_there, **{name: "Second"}), "boss")
    assert [one.values[name] for one in typing(shown) if name in one.values] == ["Second"]
    assert places


def test_what_is_kept_ends(client: Client, places: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    sent = _sent(client, "Old")
    monkeypatch.setattr(kept, "LASTS", -1)
    shown = back_in(client, sent, "boss")
    assert "not kept any more" in shown.text
    assert "Old" not in [one.values.get("name") for one in typing(shown)]
    assert places


def _sent(client: Client, name: str) -> Page:
    form = next(one for one in typing(client.get("/teams")) if "name" in one.values)
    return send(client, form, "/teams", name=name)


def test_series_are_looked_at_anew(client: Client, places: dict[str, int]) -> None:
    day = (datetime.now(UTC) + timedelta(days=3)).date()
    typed = {"count": "1", "start_date": str(day), "start_time": "20:00", "end_time": "21:00", "note": "nightly",
             "repeat": [str(number) for number in range(7)], "until": str(day + timedelta(days=2))}  # fmt: skip
    values = typed | {"csrf_token": client.csrf_token(), "plan": "2026-01-01T00:00:00+00:00 1", "request_key": "x"}
    client.raw.delete_cookie("session")
    shown = back_in(client, client.post("/bookings/series", values), "boss")
    assert "Book all 3" in shown.buttons()
    again = shown.form("Check").values
    assert {name: again[name] for name in ("start_date", "start_time", "end_time", "note", "until")} == {
        name: typed[name] for name in ("start_date", "start_time", "end_time", "note", "until")
    }
    assert db.session.scalar(db.select(db.func.count()).select_from(Booking)) == 1
    assert places


def test_maintenance_is_looked_at_anew(client: Client, places: dict[str, int]) -> None:
    query = "start_date=2036-01-01&start_time=1:00&end_date=2036-01-02&end_time=1:00&reason=New+fans"
    planned = client.get(f"/hosts/lab03/maintenance?{query}&gpu={places['gpu']}")
    form = planned.form("Plan this maintenance")
    shown = back_in(client, send(client, form, "/hosts/lab03/maintenance"), "boss")
    assert "Plan this maintenance" in shown.buttons()
    assert shown.form("Plan this maintenance").values["reason"] == "New fans"


def test_all_else_of_a_page_stays_as_it_is() -> None:
    other = '<form action="/b"><input name="x" value="1"></form><svg viewBox="0 0 1 1"/>&nbsp;é'
    page = f'<form action="/a?q=1"><input name="x" value="1"><input type="password" name="p"></form>\n{other}'
    assert filled(page, "/a", {"x": ['"2<'], "p": ["3"]}) == page.replace(
        '<input name="x" value="1">', '<input name="x" value="&quot;2&lt;">', 1
    )
