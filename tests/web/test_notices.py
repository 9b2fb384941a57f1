"""What one is told: the page under Settings, and the admins' page of what could not be sent."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from flask import Flask

from app.config import Settings
from app.extensions import db
from app.models import Event, Notice, User
from app.services import notice_words, notices, outbox
from tests.conftest import settings_for
from tests.factories import make_admin, make_user
from tests.page import Client, Page

TOPIC = "ntfys://ntfy.sh/a-secret-topic"


@pytest.fixture
def settings(shared_db: str, tmp_path: Path) -> Settings:
    return settings_for(shared_db, tmp_path, BERTH_SMTP="smtp://127.0.0.1:9")


@pytest.fixture
def alice(client: Client) -> User:
    user = make_user("alice")
    client.login_as(user)
    return user


def _add(client: Client, address: str, name: str = "phone") -> Page:
    form = client.get("/settings/notices").form("Add service")
    return client.submit(form.fill(**{"Address of the service": address, "Name": name}))


def test_what_one_ticks_is_what_one_is_told(client: Client, alice: User) -> None:
    page = client.get(
        client.get("/settings").link("What you are told, by e-mail and through services such as WeCom, Feishu or Slack")
    )
    assert page.all("//input[@name='ends_soon']/@checked | //input[@name='ended']/@checked") == ["checked"]
    page = client.follow(client.post("/settings/notices", {"ended": "mail", "moved": "mail"}))
    assert "Saved." in page.text
    chosen = notices.chosen(alice)
    assert (chosen[Event.ENDS_SOON], chosen[Event.ENDED], chosen[Event.MOVED]) == ([], ["mail"], ["mail"])


def test_only_admins_choose_what_admins_are_told(client: Client, alice: User) -> None:
    assert "Somebody waits for approval" not in client.get("/settings/notices").text
    client.post("/settings/notices", {"alarm": "mail"})
    assert Event.ALARM not in notices.chosen(alice)
    client.login_as(make_admin())
    assert "Somebody waits for approval" in client.get("/settings/notices").text


def test_a_service_is_added_tested_and_removed_and_its_address_never_shown(client: Client, alice: User) -> None:
    page = client.follow(_add(client, TOPIC))
    assert "phone added." in page.text
    assert "a-secret-topic" not in page.body
    page = client.follow(client.submit(page.form("Send a test to phone")))
    assert "A test is on its way." in page.text
    (notice,) = db.session.scalars(sa.select(Notice).where(Notice.user_id == alice.id))
    assert (notice.event, notice.channel_id is not None) == (Event.TEST, True)
    page = client.get(page.link("Remove phone…"))
    page = client.follow(client.submit(page.form("Remove service")))
    assert "phone removed." in page.text
    assert notices.channels_of(alice) == []


def test_an_address_that_is_not_allowed_is_refused_and_kept_in_the_form(client: Client, alice: User) -> None:
    page = _add(client, "json://127.0.0.1:6379")
    assert page.status == 422
    assert "This lab does not send through that kind of address." in page.text
    assert page.all("//input[@name='address']/@value") == ["json://127.0.0.1:6379"]


def test_a_test_by_mail_needs_an_address(client: Client, alice: User) -> None:
    client.submit(client.get("/settings/notices").form("Send me a test by e-mail"))
    assert [notice.channel_id for notice in notices.latest(alice)] == [None]
    alice.email = ""
    page = client.follow(client.post("/settings/notices/test", {"way": "mail"}))
    assert "Your profile has no e-mail address." in page.text
    assert client.post("/settings/notices/test", {"way": "99"}).status == 404
    assert client.post("/settings/notices/test", {"way": "x"}).status == 404


def test_admins_see_what_could_not_be_sent_and_can_try_again(client: Client, alice: User) -> None:
    for number in range(2):
        notices.post(alice, notices.Telling(Event.TEST, f"test:{number}", {}), None)
    (batch,) = outbox.claim()
    outbox.failed(batch, "smtp_550", final=True)
    assert "Not sent: the mail server answered 550" in client.get("/settings/notices").text
    client.login_as(make_admin())
    page = client.get(client.get("/audit").link("Messages that could not be sent"))
    assert "2 messages" in page.text
    assert "berth_notices_given_up 2.0" in client.get("/metrics").body
    page = client.follow(client.submit(page.form("Send again")))
    assert "It is tried again now." in page.text
    page = client.follow(client.submit(page.form("Drop")))
    assert "All messages went out" in page.text
    assert "berth_notices_given_up 0.0" in client.get("/metrics").body, "monitors count what the page lists"
    assert len(outbox.claim()[0].notices) == 1
    assert client.post("/messages/99/again").status == 404


def test_the_links_in_messages_lead_to_pages(app: Flask, alice: User) -> None:
    details = {
        "booking": 7, "gpus": 1, "host": "lab03", "starts_at": "2026-11-03T14:00:00+00:00",
        "ends_at": "2026-11-03T16:00:00+00:00", "action": "x", "by": "admin", "target": "user:bob", "left": 1,
        "renews_at": "2026-12-01T00:00:00+00:00", "first": "2026-10-01", "last": "2026-10-31", "kwh": 1,
        **dict.fromkeys(("reserved", "attached", "busy", "idle", "not_attached", "no_data", "wasted"), 3600),
        "decide_by": "2026-11-03T13:00:00+00:00", "machine": "gamma", "disk": 45 << 30, "size": 50,
    }  # fmt: skip
    adapter = app.url_map.bind("b.example")
    for event in Event:
        own = event in {*notices.PERSONAL} - {Event.QUOTA_LOW, Event.SUMMARY, Event.DISK_FULL}
        kept = {name: value for name, value in details.items() if own or name != "booking"}
        notice = Notice(event=event, details=kept)
        text = notice_words.message(alice, [notice], "https://b.example", app.extensions["berth"].zone).text
        for word in text.split():
            if word.startswith("https://"):
                adapter.match(word.removeprefix("https://b.example").partition("?")[0], method="GET")
