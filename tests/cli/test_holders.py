"""Who holds which GPU, and the end of a process of the host that does: also when nothing else answers."""

from __future__ import annotations

import os
import syslog
from pathlib import Path

import pytest
import sqlalchemy as sa

from app.drivers.base import DriverError, HostUnreachable
from app.drivers.fake import FakeLxd
from app.drivers.fake_kernel import FakeKernel
from app.drivers.kernel import How
from tests.cli.conftest import Berth, book_now

GPU, SECOND = (195, 0), (195, 1)
FIRST_PCI = "0000:01:00.0"


@pytest.fixture
def kernel(lab: Berth, environment: Path) -> FakeKernel:
    return FakeKernel(environment / "sim" / "ws1.json")


@pytest.fixture
def no_database(kernel: FakeKernel, environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a host where an agent has run, and now neither PostgreSQL nor Valkey is there."""
    (environment / "agents").mkdir()
    (environment / "agents" / "ws1.endpoint").write_text("sim:")
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@/nothing?host=/nonexistent")


def ended(engine: sa.Engine) -> list[tuple[str, str, str, str]]:
    with engine.connect() as connection:
        query = (
            "SELECT actor, target, details->>'pci_address', details->>'outcome' FROM audit_events"
            " WHERE action = 'gpu.host_process_ended' ORDER BY id"
        )
        return [tuple(row) for row in connection.execute(sa.text(query))]


def test_it_lists_who_holds_what_where_and_how(lab: Berth, kernel: FakeKernel, engine: sa.Engine) -> None:
    assert lab("holders", "ws1").out == "Nobody holds a GPU of ws1.\n"
    lab("instance", "create", "m1", "--host", "ws1", "--image", "base", "--owner", "liwei")
    book_now(engine)
    mine = kernel.add_process("m1", GPU, (195, 3))
    suspect = kernel.add_process("m1", how=How.IN_FLIGHT)
    xorg = kernel.add_process("", SECOND, how=How.LISTED)
    kernel.doubt("m1", "it is \x1b[2J frozen")
    found = lab("holders", "ws1", "--json").json()
    assert (found["host"], found["database"], found["lxd"]) == ("ws1", True, True)
    rows = [(row["gpu"], row["instance"], row["pid"], row["how"], row["booked"]) for row in found["holders"]]
    assert rows == [
        (FIRST_PCI, "m1", mine, "open", True),
        ("0000:02:00.0", None, xorg, "listed", False),
        ("0000:04:00.0", "m1", mine, "open", False),
        (None, "m1", suspect, "in_flight", None),
    ]
    assert [row["minor"] for row in found["holders"]] == [0, 1, 3, None]
    assert found["doubts"] == {"m1": "it is ?[2J frozen"}
    text = lab("holders", "ws1").out.splitlines()
    assert text[2].split() == ["0000:02:00.0", "the", "host", str(xorg), "Xorg", "listed", "no"]
    assert text[4].split() == ["any", "m1", str(suspect), "train", "in_flight", "unknown"]
    assert text[-1] == "could not be looked at: m1: it is ?[2J frozen"
    assert "end_on_host" not in kernel.calls()


def test_a_process_of_the_host_is_ended_once_confirmed(lab: Berth, kernel: FakeKernel, engine: sa.Engine) -> None:
    xorg, other = kernel.add_process("", GPU, SECOND), kernel.add_process("", GPU)
    asked = lab("holders", "ws1", "--end", str(xorg), stdin="n\n")
    assert (asked.status, asked.out) == (130, "")
    assert f"End Xorg (process {xorg} of the host), which holds {FIRST_PCI}, 0000:02:00.0?" in asked.err
    assert kernel.processes() == [xorg, other]
    assert ended(engine) == []
    done = lab("holders", "ws1", "--end", str(xorg), stdin="y\n")
    assert (done.status, done.out) == (0, f"Xorg ({xorg}) has ended.\n")
    assert kernel.processes() == [other]
    assert [row[0::2] for row in ended(engine)] == [("cli", FIRST_PCI), ("cli", "0000:02:00.0")]
    assert [row[3] for row in ended(engine)] == ["ended", "ended"]


def test_how_it_came_out_is_said(lab: Berth, kernel: FakeKernel, engine: sa.Engine) -> None:
    stays, lets_go = kernel.add_process("", GPU, immortal=True), kernel.add_process("", GPU, lets_go=True)
    refused = lab("holders", "ws1", "--end", str(stays), "--yes")
    assert refused.status == 1
    assert "Not even SIGKILL ends Xorg" in refused.err
    done = lab("holders", "ws1", "--end", str(lets_go), "--yes", "--json")
    assert done.json() == {"pid": lets_go, "name": "Xorg", "gpus": [FIRST_PCI], "outcome": "let_go"}
    assert [row[3] for row in ended(engine)] == ["stays", "let_go"]


def test_who_is_not_the_hosts_or_holds_nothing_is_left_alone(lab: Berth, kernel: FakeKernel, engine: sa.Engine) -> None:
    lab("instance", "create", "m1", "--host", "ws1", "--image", "base", "--owner", "liwei")
    inside, idle = kernel.add_process("m1", GPU), kernel.add_process("", (195, 9))
    for pid, why in {inside: "is in the machine m1", idle: "holds no GPU of ws1", 77777: "holds no GPU of ws1"}.items():
        said = lab("holders", "ws1", "--end", str(pid), "--yes")
        assert (said.status, said.out) == (1, "")
        assert why in said.err
    gone = kernel.add_process("", GPU)
    kernel.fail_next("end_on_host", DriverError("End process", "it does not hold a GPU of this host now"))
    assert lab("holders", "ws1", "--end", str(gone), "--yes").status == 1
    assert kernel.processes() == [inside, idle, gone]
    assert ended(engine) == []
    assert lab("holders", "ws1", "--end", "0").status == 2


@pytest.mark.usefixtures("no_database")
def test_it_works_without_a_database(lab: Berth, kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[str] = []
    monkeypatch.setattr(syslog, "syslog", lambda _level, text: logged.append(text))
    FakeLxd(kernel._path).add_instance("m1")
    inside, xorg = kernel.add_process("m1", GPU), kernel.add_process("", SECOND)
    said = lab("holders", "ws1", "--json")
    assert said.status == 0
    trouble = "Berth's database does not answer. Check DATABASE_URL, and that the server there is up."
    assert said.err == f"{trouble} What is booked is not known.\n"
    assert said.json()["database"] is False
    assert [(row["pid"], row["booked"]) for row in said.json()["holders"]] == [(inside, None), (xorg, False)]
    done = lab("holders", "ws1", "--end", str(xorg), "--yes")
    assert (done.status, done.out) == (0, f"Xorg ({xorg}) has ended.\n")
    assert "not in the audit" in done.err
    assert len(logged) == 1
    assert f"Xorg ({xorg}), which held 0000:02:00.0: ended" in logged[0]
    monkeypatch.delenv("DATABASE_URL")
    assert [row["pid"] for row in lab("holders", "ws1", "--json").json()["holders"]] == [inside]
    unknown = lab("holders", "ws2")
    assert (unknown.status, unknown.out) == (1, "")
    assert "It is not known how to reach ws2" in unknown.err
    assert "Berth is not running: start it" in unknown.err


def test_a_database_that_goes_meanwhile_does_not_hide_what_was_done(
    lab: Berth, kernel: FakeKernel, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: list[str] = []
    monkeypatch.setattr(syslog, "syslog", lambda _level, text: logged.append(text))
    xorg = kernel.add_process("", GPU)
    end = FakeKernel.end_on_host

    def and_drop(self: FakeKernel, *arguments: object) -> object:
        with engine.begin() as connection:
            connection.execute(sa.text("DROP TABLE audit_events CASCADE"))
        return end(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(FakeKernel, "end_on_host", and_drop)
    assert lab("holders", "ws1", "--end", str(xorg), "--yes").status == 0
    assert len(logged) == 1


def test_while_lxd_is_away_the_look_goes_on(lab: Berth, kernel: FakeKernel) -> None:
    xorg = kernel.add_process("", GPU)
    away = HostUnreachable("Connect to LXD", "refused")
    kernel.fail_next("observe", away)
    said = lab("holders", "ws1", "--json")
    assert "LXD is away (Connect to LXD: refused)" in said.err
    assert [(row["gpu"], row["pid"]) for row in said.json()["holders"]] == [(FIRST_PCI, xorg)]
    assert said.json()["lxd"] is False


def test_it_has_to_be_run_there_as_root(lab: Berth, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE gpus SET uuid = 'GPU-of-another-machine'"))
    assert "run this on ws1" in lab("holders", "ws1").err
    for endpoint, word in {"https://lab02:8443": "another machine", "/nonexistent/unix.socket": "Only root"}.items():
        with engine.begin() as connection:
            connection.execute(sa.text("UPDATE hosts SET endpoint = :endpoint"), {"endpoint": endpoint})
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        said = lab("holders", "ws1")
        assert (said.status, said.out) == (1, "")
        assert word in said.err
    assert lab("holders", "nope").status == 1
