"""The postman with a real mail server and a real web server; killed in the middle; kept from where it must not go."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from app import clock, create_core
from app.extensions import db, transaction
from app.models import Account, Allocation, Channel, Event, LedgerEntry, Notice, Wait, WaitState
from app.services import audit, channels, notices, outbox, sealing, zones
from app.services.claims import Ask
from app.services.waits import joining
from app.services.waits.joining import Wanted
from tests.conftest import settings_for
from tests.factories import gpus_of, make_booking, make_host, make_user
from tests.receivers import mail_server, web_server
from tests.runtime.running import ROOT, wait_for
from workers.apart import run_all
from workers.postman import Postman

KEY = "only for tests"
HOUR = timedelta(hours=1)


class Post:
    """A postman's surroundings: its settings, what receives, and a person."""

    def __init__(self, url: str, data: Path, stack: ExitStack, **more: str) -> None:
        smtp, self.mailbox = stack.enter_context(mail_server())
        self.port, self.hook = stack.enter_context(web_server())
        own = {
            "BERTH_SMTP": smtp,
            "BERTH_NOTIFY": "json",
            "BERTH_NOTIFY_PRIVATE": "1",
            "BERTH_URL": "https://b.example",
        }
        self.settings = {**own, **more}
        self.database_url, self.data = url, data
        self.app = create_core(settings_for(url, data, **self.settings))
        stack.enter_context(self.app.app_context())
        stack.callback(db.engine.dispose)
        with transaction():
            self.alice = make_user("alice", locale="zh_Hans_CN")
            self.channel = channels.add(
                self.alice, "hook", f"json://127.0.0.1:{self.port}/x", allowed=("json",), secret_key=KEY
            )
        self.postman = Postman(self.app)

    def tell(self, number: int = 1, event: Event = Event.TEST, *, service: bool = False, **details: Any) -> None:
        with transaction():
            channel_id = self.channel.id if service else None
            notices.post(self.alice, notices.Telling(event, f"{event}:{number}", details), channel_id)

    def waiting(self) -> list[Notice]:
        with transaction():
            query = sa.select(Notice).where(Notice.sent_at.is_(None)).execution_options(populate_existing=True)
            return list(db.session.scalars(query))

    @contextmanager
    def process(self) -> Iterator[subprocess.Popen[bytes]]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("BERTH_", "REDIS_"))}
        own = {"DATABASE_URL": self.database_url, "BERTH_DATA": str(self.data), "SECRET_KEY": KEY, "BERTH_TZ": "UTC"}
        child = subprocess.Popen(
            [sys.executable, "-m", "workers", "post"], cwd=ROOT, env={**inherited, **own, **self.settings}
        )
        try:
            yield child
        finally:
            child.send_signal(signal.SIGTERM)
            child.wait(60)


@pytest.fixture
def make_post(fresh_db: str, tmp_path: Path) -> Iterator[Callable[..., Post]]:
    with ExitStack() as stack:
        yield lambda **more: Post(fresh_db, tmp_path, stack, **more)


@pytest.fixture
def post(make_post: Callable[..., Post]) -> Post:
    return make_post()


def test_a_message_goes_by_mail_and_through_a_service_in_the_persons_language(post: Post) -> None:
    details = {
        "booking": 7, "gpus": 2, "host": "lab03", "starts_at": "2026-11-03T14:00:00+00:00",
        "ends_at": "2026-11-03T16:00:00+00:00",
    }  # fmt: skip
    post.tell(1, Event.ENDS_SOON, **details)
    post.tell(1, Event.ENDS_SOON, service=True, **details)
    assert post.postman.step() == 2
    (letter,), (message,) = post.mailbox.letters, post.hook.messages
    assert letter["To"] == "alice@example.org"
    assert letter["Auto-Submitted"] == "auto-generated"
    assert "https://b.example/bookings/7/change" in letter.get_content()
    assert message["title"] == letter["Subject"]
    assert "即将结束" in letter["Subject"]
    assert post.waiting() == []
    assert post.postman.step() == 0


def test_a_burst_is_one_message(post: Post) -> None:
    for number in range(40):
        post.tell(number, Event.WAITING, target=f"user:n{number}", action="user.registered")
    post.postman.step()
    (letter,) = post.mailbox.letters
    assert "40" in letter["Subject"]
    assert "n0" in letter.get_content()
    assert "n39" not in letter.get_content(), "the last ones are counted"


def test_no_line_of_a_name_becomes_a_header(post: Post) -> None:
    post.tell(1, Event.WAITING, target="user:eve\r\nBcc: all@example.org", action="user.registered")
    post.postman.step()
    (letter,) = post.mailbox.letters
    assert letter["Bcc"] is None


@pytest.mark.parametrize(("answer", "given_up"), [("451 later", 0), ("550 nobody", 1)])
def test_a_refusal_for_now_is_tried_again_and_one_for_good_is_not(post: Post, answer: str, given_up: int) -> None:
    post.mailbox.answer = answer
    post.tell()
    post.postman.step()
    assert post.mailbox.letters == []
    assert post.waiting()[0].trouble == f"smtp_{answer[:3]}"
    with transaction():
        assert outbox.count_given_up() == given_up
        db.session.execute(sa.update(Notice).values(due_at=sa.func.now()))
    post.mailbox.answer = "250 OK"
    post.postman.step()
    assert len(post.mailbox.letters) == 1 - given_up


def test_a_service_that_fails_is_tried_again_and_its_person_sees_why(post: Post) -> None:
    post.hook.status = 500
    post.tell(service=True)
    post.postman.step()
    assert len(post.hook.messages) == 1
    assert [notice.trouble for notice in post.waiting()] == ["http_500"]
    assert db.session.get_one(Channel, post.channel.id, populate_existing=True).trouble == "http_500"


def test_killed_before_the_server_took_it_each_message_comes_once(post: Post) -> None:
    post.mailbox.gate.clear()
    post.tell()
    with post.process() as child:
        wait_for(post.mailbox.asked.is_set, 60)
        child.kill()
        child.wait(30)
    post.mailbox.gate.set()
    with post.process():
        wait_for(lambda: not post.waiting(), 60)
    assert [letter["Message-ID"] for letter in post.mailbox.letters] == ["<berth.1.1@localhost>"]


def test_of_two_postmen_one_sends(post: Post) -> None:
    for number in range(3):
        post.tell(number)
    with post.process(), post.process():
        wait_for(lambda: not post.waiting(), 60)
    numbers = sorted(letter["Message-ID"] for letter in post.mailbox.letters)
    assert numbers in (["<berth.1.3@localhost>"], ["<berth.1.1@localhost>", "<berth.2.3@localhost>"]), "each once"


def test_a_private_address_is_not_connected_to(make_post: Callable[..., Post]) -> None:
    post = make_post(BERTH_NOTIFY_PRIVATE="0")
    post.tell(service=True)
    post.postman.step()
    assert post.hook.messages == []
    assert [notice.trouble for notice in post.waiting()] == ["not_taken"]


def test_a_redirect_is_not_followed(post: Post) -> None:
    with web_server() as (port, other):
        post.hook.status, post.hook.location = 307, f"http://127.0.0.1:{port}/y"
        post.tell(service=True)
        post.postman.step()
    assert len(post.hook.messages) == 1
    assert other.messages == []


def test_an_address_that_was_sealed_with_another_key_is_given_up(post: Post) -> None:
    with transaction():
        post.channel.sealed = sealing.seal("another key", "json://127.0.0.1/")
    post.tell(service=True)
    post.postman.step()
    with transaction():
        assert [notice.trouble for notice in outbox.given_up()] == ["sealed"]


def test_what_cannot_be_written_or_makes_no_sense_keeps_nothing_else_back(post: Post) -> None:
    post.tell(1, Event.MOVED, booking=1)  # and nothing of what its words need
    with transaction():
        bob = make_user("bob")
        notices.post(bob, notices.Telling(Event.TEST, "test:2", {}), None)
        audit.record("x", "booking.moved", "booking:none")
    post.postman.step()
    assert [letter["To"] for letter in post.mailbox.letters] == ["bob@example.org"]
    assert [notice.trouble for notice in post.waiting()] == ["died"]
    with transaction():
        db.session.execute(sa.update(Notice).values(attempts=20, due_at=sa.func.now()))
    post.postman.step()
    with transaction():
        assert [notice.trouble for notice in outbox.given_up()] == ["died"]


def test_what_dies_or_takes_too_long_is_told_apart_from_what_is_done() -> None:
    tasks = [partial(str, ""), partial(os._exit, 3), partial(time.sleep, 60), partial(str, "again x")]
    began = time.monotonic()
    assert run_all(tasks, 5.0) == ["", "died", "too_slow", "again x"]  # type: ignore[arg-type]
    assert time.monotonic() - began < 30


def test_what_runs_apart_ends_with_who_started_it(tmp_path: Path) -> None:
    script = (
        "import sys, time, os\nfrom workers.apart import run_all\n"
        "def work():\n  print(os.getpid(), flush=True)\n  time.sleep(60)\n  return ''\n"
        "run_all([work], 60)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE)
    assert child.stdout is not None
    number = int(child.stdout.readline())
    child.kill()
    child.wait(30)
    wait_for(lambda: not Path(f"/proc/{number}/exe").exists() or "Z" in Path(f"/proc/{number}/stat").read_text())


def test_it_closes_the_books_of_a_host_that_nobody_looks_after(post: Post) -> None:
    now = clock.now().replace(microsecond=0)
    with transaction():
        alice = db.session.merge(post.alice)
        booking_id = make_booking(alice, gpus_of(make_host("lab03")), now - timedelta(hours=9), now - HOUR).id
    post.postman.step()
    with transaction():
        kinds = db.session.scalars(sa.select(LedgerEntry.kind).where(LedgerEntry.booking_id == booking_id)).all()
        assert sorted(kinds) == ["hold", "release", "settle"]
        assert db.session.scalars(sa.select(Account.balance).where(Account.name == "alice")).one() == 100 * 3600


def test_it_counts_what_is_long_over(post: Post) -> None:
    start = clock.now() - timedelta(days=3)
    with transaction():
        zones.write("Asia/Shanghai")
        alice = db.session.merge(post.alice)
        make_booking(alice, gpus_of(make_host("lab03", gpus=2)), start, start + HOUR, settled_at=start + HOUR)
    post.postman.step()
    with transaction():
        assert db.session.scalars(sa.select(Allocation.counted)).all() == [True, True]


def test_it_brings_the_months_hours_and_serves_the_waiting_list_with_them(post: Post) -> None:
    now = clock.now()
    with transaction():
        make_host("lab03", gpus=1)
        bob = make_user("bob", hours=0)
        joining.join(bob, Wanted(Ask(ends_at=now + timedelta(hours=9)), 7200, by_itself=False), 900)
        assert bob.account is not None
        bob.account.monthly, bob.account.renews_at = 5 * 3600, now + timedelta(days=1)
    post.postman.step()
    with transaction():
        assert db.session.scalars(sa.select(Wait.state)).all() == [WaitState.WAITING]
        db.session.execute(sa.update(Account).values(renews_at=now).where(Account.name == "bob"))
    post.postman._next_look.clear()
    post.postman.step()
    post.postman.step()  # what was found is told
    with transaction():
        assert db.session.scalars(sa.select(Wait.state)).all() == [WaitState.OFFERED]
        assert db.session.scalars(sa.select(Account.balance).where(Account.name == "bob")).one() == 3 * 3600
    assert "Offered to you: 1 GPU on lab03" in post.mailbox.letters[-1]["Subject"]


@pytest.mark.parametrize(
    "chore", ["news.collect", "quota.renew_due", "folding.prune", "serving.tend", "reclaimer.tend"]
)
@pytest.mark.parametrize("sql", ["", "SELECT 1 / 0"])
def test_a_chore_that_fails_keeps_neither_the_others_nor_the_messages_back(
    post: Post, monkeypatch: pytest.MonkeyPatch, chore: str, sql: str
) -> None:
    done, failed = [], []

    def fails(*_args: object, **_more: object) -> int:
        failed.append(chore)
        if sql:
            db.session.execute(sa.text(sql))
        raise ValueError("a row that nobody thought of")

    others = {"folding.prune", "bookkeeper.tend", "reclaimer.tend"} - {chore}
    for name in others:
        monkeypatch.setattr(f"workers.postman.{name}", partial(done.append, name))
    monkeypatch.setattr(f"workers.postman.{chore}", fails)
    post.tell()
    assert post.postman.step() == 1
    assert len(post.mailbox.letters) == 1
    assert set(done) == others
    post.postman.step()
    assert len(failed) == (2 if chore == "news.collect" else 1), "it has its time like one that worked"
    post.postman._let_go()


def test_a_database_that_went_away_ends_the_step(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    post.tell()
    later: list[int] = []
    of_all = "FROM pg_stat_activity WHERE datname = current_database() ORDER BY pid = pg_backend_pid()"  # its own last
    away = f"SELECT pg_terminate_backend(pid, 10000) FROM (SELECT pid {of_all}) AS connections"
    monkeypatch.setattr("workers.postman.quota.renew_due", lambda _zone: db.session.execute(sa.text(away)))
    monkeypatch.setattr("workers.postman.folding.prune", lambda: later.append(1))
    assert post.postman._alone()
    with pytest.raises(SQLAlchemyError):
        post.postman.step()
    assert (later, post.mailbox.letters) == ([], []), "somebody else may be the postman by now"
    post.postman._let_go()
    monkeypatch.undo()
    assert (post.postman._alone(), post.postman.step()) == (True, 1)
    post.postman._let_go()
