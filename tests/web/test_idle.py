"""GPUs that do nothing, on pages: the owner's answer, the rules of it, what became of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from app.extensions import db
from app.models import Charge, Reclaim
from app.services import policy, recording
from tests.factories import make_admin
from tests.page import Client, Page
from tests.services.idling import HOUR, MINUTE, NOW, Lab

KEEP = "Keep for 60 min (2 more times)"


@pytest.fixture
def lab(client: Client, freeze: Callable, woken: list[str]) -> Lab:
    found = Lab(freeze)
    found.measure(0, 300, memory=100)
    found.look(125)
    client.login_as(found.owner)
    return found


def show(client: Client, lab: Lab, minute: float = 126) -> Page:
    lab.freeze(NOW + minute * MINUTE)
    return client.get(f"/bookings/{lab.booking.id}")


def test_the_page_says_what_happens_and_keeps_it_with_one_click(client: Client, lab: Lab) -> None:
    page = show(client, lab)
    note = page.texts("//*[@id='idle']")[0]
    assert note.startswith(
        "These 2 GPUs did nothing since Tue 24 Nov 14:00; at 16:20 the rest of the time is given back."
    )
    assert "Memory is held" in note
    form = page.form(KEEP)
    page = client.follow(client.submit(form))
    assert "Kept: nothing is given back before Tue 24 Nov 17:06." in page.text
    assert not page.all("//*[@id='idle']")
    assert client.submit(form).status == 303, "a second click finds it done"
    lab.look(200)
    assert show(client, lab, 201).form("Keep for 60 min (1 more time)")


def test_a_keep_that_is_refused_says_why(client: Client, lab: Lab) -> None:
    form = show(client, lab).form(KEEP)
    policy.current().keeps = 0
    page = client.submit(form)
    assert page.status == 422
    assert "You have kept this booking as often as the lab's rules allow." in page.texts("//*[@role='alert']")[-1]
    assert "only using the GPUs keeps it now" in page.texts("//*[@id='idle']")[0]
    assert len(lab.look(140)) == 1
    page = client.submit(form)
    assert page.status == 409
    assert "Too late: what was left of this booking was given back at Tue 24 Nov 16:20." in page.text
    assert "It ended by itself: its GPUs did nothing since Tue 24 Nov 14:00." in page.text


def test_the_live_page_brings_the_warning_along(client: Client, lab: Lab) -> None:
    lab.freeze(NOW + 126 * MINUTE)
    answer = client.get(f"/bookings/{lab.booking.id}?seen=in_use-1-0", htmx=True)
    assert "did nothing since" in " ".join(answer.texts("//*[@id='actions']"))
    assert "did nothing since" in answer.texts("//*[@id='spoken']")[0]


def test_the_rules_of_it_are_set_on_the_page(client: Client, lab: Lab) -> None:
    client.login_as(make_admin("boss"))
    form = client.get("/rules").form("Save rules")
    assert (form.values["reclaim"], form.values["charge"], form.values["idle_grace"]) == ("on", "reclaimed", "15")
    form.values |= {"reclaim": "trial", "charge": "attached", "idle_minutes": "45", "keeps": "0"}
    assert client.submit(form).status == 303
    rules = policy.current()
    assert (rules.reclaim, rules.charge) == (Reclaim.TRIAL, Charge.ATTACHED)
    assert (rules.idle_minutes, rules.keeps) == (45, 0)
    form.values |= {"reclaim": "perhaps", "idle_minutes": "50"}
    page = client.submit(form)
    assert page.status == 422
    assert "What becomes of them: Choose one of these." in page.texts("//*[@role='alert']")[-1]
    assert page.form("Save rules").values["idle_minutes"] == "50"
    assert policy.current().idle_minutes == 45


def test_admins_read_what_would_have_come_back(client: Client, lab: Lab) -> None:
    boss = make_admin("boss")
    assert client.get("/rules/idle").status == 403
    client.login_as(boss)
    policy.current().reclaim = Reclaim.TRIAL
    for minute in (127, 142):
        assert lab.look(minute) == []
    page = client.get("/rules/idle")
    assert "This is a trial" in page.text
    assert "In trials, 11.27 GPU-hours of 1 booking would have come back." in page.text
    assert page.texts("//tbody/tr/td")[0] == "Li Wei"
    assert "Would have been given back" in page.texts("//tbody/tr")[0]


def test_the_ledger_says_what_was_charged_and_the_quota_page_the_rule(client: Client, lab: Lab) -> None:
    policy.current().charge = Charge.ATTACHED
    lab.allocations(attached_at=NOW + HOUR)
    page = client.get("/quota")
    assert "GPUs that do nothing for 60 minutes are given back 15 minutes after you are told." in page.text
    lab.freeze(NOW + 9 * HOUR)
    db.session.expire_all()
    recording.settle_ended(lab.host)
    words = "(14 GPU-hours attached of 16 reserved)"
    assert words in show(client, lab, 541).text
    assert words in client.get("/quota").text


def test_the_ledger_says_what_could_not_be_given(client: Client, lab: Lab) -> None:
    lab.allocations(attached_at=None, trouble="quarantined")
    lab.freeze(NOW + 9 * HOUR)
    db.session.expire_all()
    recording.settle_ended(lab.host)
    assert "(0 of 16 GPU-hours: what Berth could not give costs nothing)" in client.get("/quota").text


def test_every_page_says_it_and_home_shows_it(client: Client, lab: Lab) -> None:
    lab.freeze(NOW + 126 * MINUTE)
    words = "These 2 GPUs did nothing since Tue 24 Nov 14:00; at 16:20 the rest of the time is given back."
    for path in ("/", "/calendar", "/nix"):
        page = client.get(path)
        assert page.texts("//header//*[contains(@class, 'banner')]") == [f"On lab03: {words} Keep it"]
        assert client.get(page.link("Keep it").partition("#")[0]).form(KEEP)
    [card] = client.get("/").texts("//*[@aria-labelledby='home-bookings']")
    assert "Idle 2 GPUs on lab03 Does nothing; at 16:20 the rest of the time is given back." in card
    assert "Keep it" not in show(client, lab).text, "its own page says it anyway"
    client.submit(show(client, lab).form(KEEP))
    page = client.get("/")
    assert not page.all("//header//*[contains(@class, 'banner')]")
    assert "In use 2 GPUs" in page.texts("//*[@aria-labelledby='home-bookings']")[0]
