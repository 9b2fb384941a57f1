"""Who gets a terminal, and how it ends; on a simulated host, over real WebSockets."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from flask import Flask
from websockets.exceptions import InvalidStatus

from app import clock, create_core
from app.drivers.fake import FakeLxd
from app.drivers.fake_terminal import FakePty
from app.errors import RuleRefused
from app.extensions import db, transaction
from app.models import AuditEvent, Instance, SignIn, Terminal
from app.services import accounts, inventory, signins
from tests.conftest import settings_for
from tests.factories import make_admin, make_host, make_instance, make_user
from tests.runtime.running import wait_for
from tests.terminals import ORIGIN, Desk, Screen, serving


class Slow(FakeLxd):
    """Opens a terminal when it is told to; keeps the shells that it gave, and which of them were closed."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.asked, self.go, self.closed = threading.Event(), threading.Event(), threading.Event()

    def terminal(self, instance: str, columns: int, rows: int) -> FakePty:
        self.asked.set()
        assert self.go.wait(30)
        pty, closed = super().terminal(instance, columns, rows), self.closed

        def close() -> None:
            closed.set()
            FakePty.close(pty)

        pty.close = close  # type: ignore[method-assign]
        return pty


@pytest.fixture
def core(fresh_db: str, tmp_path: Path) -> Flask:
    app = create_core(settings_for(fresh_db, tmp_path))
    fake = FakeLxd(tmp_path / "ws1.json", gpus=1, pace=0)
    for name, owner in (("mine", "li"), ("theirs", "wang")):
        fake.add_instance(name, owner=owner)
    with app.app_context(), transaction():
        host = inventory.add_host("test", "ws1", "sim:", fake)
        make_admin("boss")
        make_instance(make_user("li"), host, "mine")
        make_instance(make_user("wang"), host, "theirs")
    return app


@pytest.fixture
def desk(core: Flask, tmp_path: Path) -> Iterator[Desk]:
    with serving(core, "ws1", FakeLxd(tmp_path / "ws1.json")) as found:
        yield found
    with core.app_context():
        db.engine.dispose()


def audited(core: Flask, action: str) -> list[AuditEvent]:
    with core.app_context():
        query = db.select(AuditEvent).where(AuditEvent.action == action).order_by(AuditEvent.id)
        return list(db.session.scalars(query))


def test_typed_and_seen_and_on_record(desk: Desk) -> None:
    screen = desk.open(desk.ticket(desk.sign_in("li"), "mine"))
    screen.until("root@mine:~# ")
    assert screen.states == ["open"]
    screen.type("hello\r")
    screen.until("hello\r\nroot@mine")
    screen.type("exit\r")
    assert screen.until_closed() == "ended"
    (closed,) = wait_for(lambda: audited(desk.core, "terminal.closed"))
    (opened,) = audited(desk.core, "terminal.opened")
    assert (opened.actor, opened.target) == (closed.actor, closed.target) == ("li", "instance:mine")
    assert closed.details["why"] == "ended"
    assert closed.details["seconds"] >= 0


def test_nobody_gets_one_in_an_instance_that_only_has_the_machines_name(desk: Desk, tmp_path: Path) -> None:
    FakeLxd(tmp_path / "ws1.json").add_instance("mine")  # another one, made by hand
    screen = desk.open(desk.ticket(desk.sign_in("li"), "mine"))
    screen.hear()
    assert screen.states == ["failed"]
    assert "terminal" not in FakeLxd(tmp_path / "ws1.json").calls()


def test_an_admin_may_and_that_is_on_record_too(desk: Desk) -> None:
    desk.open(desk.ticket(desk.sign_in("boss"), "mine")).until("root@mine")
    assert [event.actor for event in audited(desk.core, "terminal.opened")] == ["boss"]


@pytest.mark.parametrize(
    "origin",
    [None, "https://evil.example", f"{ORIGIN}:8443", "https://x.berth.example.org", "null", "http://berth.example.org"],
)
def test_another_page_does_not_even_connect(desk: Desk, origin: str | None) -> None:
    ticket = desk.ticket(desk.sign_in("li"), "mine")
    with pytest.raises(InvalidStatus, match="403"):
        desk.open(ticket, origin)
    desk.open(ticket).until("root@mine")


def test_a_ticket_is_good_once(desk: Desk) -> None:
    sign_in = desk.sign_in("li")
    ticket = desk.ticket(sign_in, "mine")
    desk.ticket(sign_in, "mine")  # one more is awaited, so that the second try gets to its first word
    desk.open(ticket).until("root@mine")
    assert desk.open(ticket).until_closed() == "refused"
    assert desk.open("x" * 43).until_closed() == "refused"


def test_a_ticket_of_one_page_is_not_good_for_another(desk: Desk) -> None:
    ticket = desk.ticket(desk.sign_in("li"), "mine")
    desk.ticket(desk.sign_in("wang"), "theirs", "https://other.example")
    assert desk.open(ticket, "https://other.example").until_closed() == "refused"


def test_a_ticket_for_anothers_machine_is_worth_nothing(desk: Desk) -> None:
    assert desk.open(desk.ticket(desk.sign_in("li"), "theirs")).until_closed() == "refused"
    assert audited(desk.core, "terminal.opened") == []


def test_a_ticket_for_another_host_is_worth_nothing_here(desk: Desk) -> None:
    with desk.core.app_context(), transaction():
        user = accounts.get("li")
        make_instance(user, make_host("ws2"), "elsewhere")
    sign_in = desk.sign_in("li")
    desk.ticket(sign_in, "mine")
    assert desk.open(desk.ticket(sign_in, "elsewhere")).until_closed() == "refused"


def test_a_ticket_is_good_for_half_a_minute(desk: Desk) -> None:
    sign_in = desk.sign_in("li")
    old = desk.ticket(sign_in, "mine")
    with desk.core.app_context(), transaction():
        db.session.execute(db.update(Terminal).values(created_at=clock.now() - timedelta(seconds=31)))
    with pytest.raises(InvalidStatus):
        desk.open(old)
    desk.ticket(sign_in, "mine")
    assert desk.open(old).until_closed() == "refused"


@pytest.mark.parametrize("how", ["sign out", "suspend", "machine deleted", "machine given away", "idle sign-in"])
def test_it_ends_with_the_right_to_it(desk: Desk, how: str) -> None:
    sign_in = desk.sign_in("li")
    screen = desk.open(desk.ticket(sign_in, "mine"))
    screen.until("root@mine")
    with desk.core.app_context(), transaction():
        machine = db.session.scalars(db.select(Instance).where(Instance.name == "mine")).one()
        row = db.session.get_one(SignIn, sign_in)
        if how == "sign out":
            signins.end(row)
        elif how == "suspend":
            accounts.suspend("li", actor="boss")
        elif how == "machine deleted":
            machine.deleted_at = clock.now()
        elif how == "machine given away":
            machine.owner_id = accounts.get("wang").id
        else:
            row.seen_at = clock.now() - timedelta(hours=9)
    began = time.monotonic()
    assert screen.until_closed() == "revoked"
    assert time.monotonic() - began < 20
    (closed,) = wait_for(lambda: audited(desk.core, "terminal.closed"))
    assert closed.details["why"] == "revoked"


def test_it_ends_when_nothing_is_typed(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = desk.open(desk.ticket(desk.sign_in("li"), "mine"))
    screen.until("root@mine")
    monkeypatch.setattr("workers.terminals.IDLE", 0.5)
    assert screen.until_closed() == "idle"


def test_five_at_once(desk: Desk) -> None:
    sign_in = desk.sign_in("li")
    screens = [desk.open(desk.ticket(sign_in, "mine")) for _ in range(5)]
    for screen in screens:
        screen.until("root@mine")
    with pytest.raises(RuleRefused, match="You have 5 terminals open"):
        desk.ticket(sign_in, "mine")
    screens[0].connection.close()
    wait_for(lambda: audited(desk.core, "terminal.closed"))
    desk.open(desk.ticket(sign_in, "mine")).until("root@mine")


@pytest.mark.parametrize("word", [b"bytes", "no json", "[]", '{"columns": "x"}', '{"ticket": ' + "1" * 2000 + "}"])
def test_odd_first_words_are_refused_and_nothing_breaks(desk: Desk, word: str | bytes) -> None:
    sign_in = desk.sign_in("li")
    desk.ticket(sign_in, "mine")
    connection = desk.connection({"Origin": ORIGIN})
    connection.send(word)
    assert Screen(connection).until_closed() == "refused"
    desk.open(desk.ticket(sign_in, "mine")).until("root@mine")


def test_a_frame_too_long_ends_it(desk: Desk) -> None:
    screen = desk.open(desk.ticket(desk.sign_in("li"), "mine"))
    screen.until("root@mine")
    screen.type("x" * 65537)
    screen.until_closed()
    assert screen.connection.close_code == 1009


def test_a_machine_that_does_not_run(desk: Desk, tmp_path: Path) -> None:
    FakeLxd(tmp_path / "ws1.json").stop("mine")
    assert desk.open(desk.ticket(desk.sign_in("li"), "mine")).until_closed() == "failed"
    (closed,) = wait_for(lambda: audited(desk.core, "terminal.closed"))
    assert closed.details["why"] == "failed"


@pytest.fixture
def slow(core: Flask, tmp_path: Path) -> Iterator[tuple[Slow, Desk]]:
    driver = Slow(tmp_path / "ws1.json")
    with serving(core, "ws1", driver) as found:
        yield driver, found
    with core.app_context():
        db.engine.dispose()


def test_no_shell_stays_for_a_page_that_left_while_it_was_opened(slow: tuple[Slow, Desk]) -> None:
    driver, desk = slow
    screen = desk.open(desk.ticket(desk.sign_in("li"), "mine"))
    assert driver.asked.wait(30)
    screen.connection.close()
    driver.go.set()
    assert driver.closed.wait(20)
    (closed,) = wait_for(lambda: audited(desk.core, "terminal.closed"))
    assert closed.details["why"] == "left"


def test_no_shell_stays_after_a_message_of_brackets_alone(slow: tuple[Slow, Desk]) -> None:
    driver, desk = slow
    driver.go.set()
    screen = desk.open(desk.ticket(desk.sign_in("li"), "mine"))
    screen.until("root@mine")
    screen.connection.send("[" * 1024)
    assert driver.closed.wait(20)
    screen.until_closed()
    assert wait_for(lambda: audited(desk.core, "terminal.closed"))[0].details["why"] == "left"
