"""Up and down: first start, second start, a crash of every part and of the whole."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from app import clock, queue
from app.drivers.fake import FakeLxd
from app.extensions import db, transaction
from app.models import Allocation, User
from app.services import accounts, bookings, inventory, zones
from tests.factories import make_admin, make_instance, make_user
from tests.receivers import Mailbox
from tests.runtime.running import ROOT, Berth, environment, free_port, processes, wait_for, wakes


def answers(berth: Berth) -> bool:
    try:
        return berth.health()["status"] == "ok"
    except OSError:
        return False


def passed_at(berth: Berth, host: str = "sim1") -> object:
    with berth.app().app_context():
        return inventory.host(host).pass_at


def test_first_start_says_where_and_with_which_password(berth: Berth) -> None:
    assert f"Berth is ready: http://127.0.0.1:{berth.port}" in berth.lines
    password = re.search(r"Sign in as admin with the password  (\S+)", berth.output)
    assert password, berth.output
    kept = berth.data / "admin-password"
    assert kept.read_text().strip() == password[1]
    with berth.app().app_context():
        admin = accounts.authenticate("admin", password[1])
        assert admin is not None
        assert admin.is_admin
        assert zones.written() == "UTC"
    health = berth.health()
    assert (health["status"], health["database"], health["valkey"]) == ("ok", "ok", "ok")
    assert [host["name"] for host in health["hosts"]] == ["sim1", "sim2"]
    assert "simulated: sim1, sim2" in berth.output


def test_secrets_are_for_their_owner_only(berth: Berth) -> None:
    secrets = ["admin-password", "passwords.json", "secret_key", "run/services.json", "run/sockets/valkey.acl"]
    for name in secrets:
        assert stat.S_IMODE((berth.data / name).stat().st_mode) == 0o600, name
    passwords = [value for name, value in berth.book().items() if name.endswith("url")]
    for pid in processes(berth.data):
        line = Path(f"/proc/{pid}/cmdline").read_text()
        assert not any(text.split(":")[2].split("@")[0] in line for text in passwords), line


def test_portal_does_not_know_the_agents_login(berth: Berth) -> None:
    agents_login = berth.book()["redis_agent_url"]
    portal = berth.pids("gunicorn")
    assert len(portal) == 3
    for pid in portal:
        assert agents_login not in Path(f"/proc/{pid}/environ").read_text()


def test_a_wake_makes_a_pass_at_once(berth: Berth) -> None:
    """Of ten wakes one is enough: what else the machine does is not ours."""
    assert any(wakes(berth, 1) for _ in range(10))


def book(berth: Berth, username: str, starts_in: float, seconds: float) -> tuple[int, datetime]:
    """A booking of sim1's first GPU for a new person with a machine there: its id, and when it starts."""
    FakeLxd(berth.data / "sim" / "sim1.json").add_instance(f"{username}-sim1", owner=username)
    with berth.app().app_context():
        with transaction():
            user = make_user(username)
            host = inventory.host("sim1")
            make_instance(user, host, f"{username}-sim1")
            gpu = inventory.gpus(host.id)[0][0]
            start = clock.now().replace(microsecond=0) + timedelta(seconds=starts_in)
            ask = bookings.Ask(starts_at=start, ends_at=start + timedelta(seconds=seconds), gpu_ids=(gpu.id,))
            booking_id = bookings.create(user, ask, 1).id
        queue.wake("sim1")  # as the edge that made the booking does; the rest is the agent's
    return booking_id, start


def allocation(booking_id: int) -> Allocation:
    db.session.rollback()
    db.session.expire_all()
    return db.session.scalars(db.select(Allocation).where(Allocation.booking_id == booking_id)).one()


def test_a_booking_is_kept_to_the_moment_without_wakes(berth: Berth) -> None:
    """Nobody wakes anybody here: the agent looks by itself when the booking starts and ends, its tick is far away. Of
    three bookings one to the moment is enough: what else the machine does is not ours."""
    late = []
    for username in ("moment", "moment2", "moment3"):
        booking_id, start = book(berth, username, 4, 8)
        with berth.app().app_context():
            attached = wait_for(lambda number=booking_id: allocation(number).attached_at, why="attached")
            detached = wait_for(lambda number=booking_id: allocation(number).detached_at, why="detached")
        late.append(max(attached - start, detached - start - timedelta(seconds=8)))
        assert attached >= start
        assert detached >= start + timedelta(seconds=8)
        if late[-1] < timedelta(seconds=0.6):
            break
    assert late[-1] < timedelta(seconds=0.6), late


def test_a_booking_ends_on_time_while_database_valkey_and_supervisor_are_away(berth: Berth) -> None:
    booking_id, start = book(berth, "alone", 1, 20)
    host = FakeLxd(berth.data / "sim" / "sim1.json")

    def plugged() -> bool:
        return bool(host.observe(frozenset({"alone-sim1"})).instances["alone-sim1"].devices)

    with berth.app().app_context():
        wait_for(lambda: allocation(booking_id).attached_at, why="attached")
    os.kill(berth.process.pid, signal.SIGSTOP)  # or it would start both again
    try:
        for word in ("bin/postgres", "valkey-server"):
            os.kill(berth.pids(word)[0], signal.SIGKILL)
        assert clock.now() < start + timedelta(seconds=20)
        assert plugged()
        wait_for(lambda: not plugged(), 60, "detached")
        late = clock.now() - start - timedelta(seconds=20)
    finally:
        os.kill(berth.process.pid, signal.SIGCONT)
    assert timedelta(0) <= late < timedelta(seconds=10), "the tick is minutes away"
    wait_for(lambda: answers(berth) and wakes(berth, 1), 60, "all is well again")
    with berth.app().app_context():
        wait_for(lambda: allocation(booking_id).detached_at, why="written down afterwards")


def test_second_supervisor_is_told_of_the_first(berth: Berth) -> None:
    second = Berth(berth.data, free_port())
    assert second.process.wait(60) == 1
    wait_for(lambda: second.lines)
    assert f"already running on {berth.data}" in second.output
    assert f"process {berth.process.pid}" in second.output
    assert answers(berth)


def test_second_agent_and_a_pass_by_hand_do_no_harm(berth: Berth) -> None:
    second = subprocess.Popen(
        [sys.executable, "-m", "workers", "agent", "sim1"],
        cwd=ROOT,
        env=berth.environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert second.stderr is not None
        assert "agent of sim1: started" in second.stderr.readline()
        by_hand = berth.workers("pass", "sim1")
        assert (by_hand.returncode, by_hand.stdout) == (0, "nothing to do\n"), by_hand
        wait_for(lambda: wakes(berth, 1), why="a wake")
    finally:
        second.terminate()
        assert second.wait(60) == 0


def test_pass_over_an_unknown_host_says_so(berth: Berth) -> None:
    done = berth.workers("pass", "nowhere")
    assert done.returncode == 1
    assert done.stderr.strip().endswith("There is no host nowhere.")


def test_host_that_is_added_gets_an_agent(berth: Berth) -> None:
    with berth.app().app_context(), transaction():
        inventory.add_host("test", "sim3", "sim:sim3", FakeLxd(berth.data / "sim" / "sim3.json", pace=0))
    wait_for(lambda: passed_at(berth, "sim3"), 60, "a pass over sim3")


def test_admin_password_is_forgotten_with_the_next_start_once_changed(berth: Berth) -> None:
    """The change is made here, its effect is asserted after the second start."""
    with berth.app().app_context(), transaction():
        admin = db.session.scalars(db.select(User).where(User.username == "admin")).one()
        admin.password_hash = accounts.passwords.hashed("something quite different", "nobody")


@pytest.mark.parametrize(
    ("part", "word"),
    [
        ("valkey", "valkey-server"),
        ("database", "bin/postgres"),
        ("agent", "workers agent sim1"),
        ("portal", "gunicorn"),
        ("postman", "workers post"),
    ],
)
def test_what_is_killed_comes_back(berth: Berth, part: str, word: str) -> None:
    killed = berth.pids(word)[0]
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: (left := berth.pids(word)) and killed not in left, 60, f"another {part}")
    wait_for(lambda: answers(berth) and berth.health()["valkey"] == "ok", 60, "healthy")
    wait_for(lambda: wakes(berth, 1), 60, "wakes arrive")


def test_people_are_told(berth: Berth, mailbox: tuple[str, Mailbox]) -> None:
    with berth.app().app_context(), transaction():
        make_admin("head", locale="zh_Hans_CN")
        accounts.register("newcomer", "a long enough word", full_name="New", email="new@example.org")
    letters = wait_for(lambda: [letter for letter in mailbox[1].letters if "head@" in letter["To"]], 60, "a letter")
    assert "newcomer 正在等待审批" in letters[0]["Subject"]
    assert f"http://127.0.0.1:{berth.port}/people" in letters[0].get_content()


def test_ctrl_c_leaves_nothing_and_the_next_start_finds_everything(berth: Berth) -> None:
    before = passed_at(berth, "sim3")
    began = time.monotonic()
    assert berth.stop(signal.SIGINT) == 0, berth.output
    assert time.monotonic() - began < 25
    assert processes(berth.data) == {}
    assert not (berth.data / "run" / "services.json").exists()
    assert not (berth.data / "run" / "sockets").exists()
    assert before is not None


def test_data_outlives_a_stop_a_kill_and_a_crash_of_the_database(berth: Berth, data: Path) -> None:
    """Needs the first `berth up` to be stopped, as the test before leaves it."""
    second = Berth(data)
    try:
        second.ready()
        assert {"sim1", "sim2", "sim3"} == {host["name"] for host in second.health()["hosts"]}
        assert "password" not in second.output
        assert not (data / "admin-password").exists()
        second.process.kill()
        second.process.wait()
        third = Berth(data, second.port)  # at once, while the killed one's children are on their way out
        try:
            third.ready()
            with third.app().app_context():
                assert db.session.scalar(db.select(User.username).where(User.username == "moment")) == "moment"
            wait_for(lambda: wakes(third, 1), why="a wake")
            os.kill(third.pids("bin/postgres")[0], signal.SIGKILL)
            third.process.kill()  # both at once: recovery by the next start
            third.process.wait()
            wait_for(lambda: not processes(data), 60, "no orphan")
        finally:
            third.kill()
        last = Berth(data).ready()
        try:
            assert len(last.health()["hosts"]) == 3
            assert last.stop(signal.SIGTERM) == 0
        finally:
            last.kill()
    finally:
        second.kill()
    assert processes(data) == {}


def test_bad_settings_are_all_named_at_once(tmp_path: Path) -> None:
    bad = environment(tmp_path / "var", 1, PORT="eighty", BERTH_TICK="0", BERTH_TZ="Mars/Base", REDIS_URL="http://x")
    command = [sys.executable, "-m", "workers", "up"]
    done = subprocess.run(command, cwd=ROOT, env=bad, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert all(name in done.stderr for name in ("PORT=", "BERTH_TICK=", "BERTH_TZ=", "REDIS_URL:")), done.stderr
    assert "Traceback" not in done.stderr


def test_busy_port_is_said_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = Berth(tmp_path / "var", port)
        assert refused.process.wait(60) == 1
    wait_for(lambda: refused.lines)
    assert f"Port {port} of 127.0.0.1 cannot be used: Address already in use." in refused.output
    assert not (tmp_path / "var" / "postgres").exists()
