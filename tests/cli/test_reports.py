"""The report and the doctor."""

from __future__ import annotations

import csv
import io

import pytest
import sqlalchemy as sa

from app.cli.doctor import _instances as machines_of
from app.drivers.base import DeviceSeen, HostSeen, InstanceSeen, Node
from tests.cli.conftest import Berth, book_now


def test_the_report_adds_up_by_person(lab: Berth, engine: sa.Engine) -> None:
    book_now(engine)
    [row] = lab("report", "--json").json()
    assert (row["user"], row["bookings"], row["reserved_hours"], row["attached_hours"]) == ("liwei", 1, 4.0, 1.0)
    [line] = csv.DictReader(io.StringIO(lab("report", "--format", "csv").out))
    assert (line["user"], float(line["reserved_hours"])) == ("liwei", 4.0)
    assert "RESERVED HOURS" in lab("report").out
    assert lab("report", "--from", "2026-01-01", "--to", "2026-01-02", "--json").json() == []
    for wrong in (("--from", "yesterday"), ("--from", "2026-01-02", "--to", "2026-01-01"), ("--format", "xls")):
        assert lab("report", *wrong).status == 2


def test_names_steer_neither_the_terminal_nor_a_spreadsheet(lab: Berth, engine: sa.Engine) -> None:
    book_now(engine)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE users SET full_name = :name"), {"name": "=1+1\x9b31m\u202e"})
    assert "\x9b" not in lab("report").out
    assert "\u202e" not in lab("user", "list").out
    [line] = csv.DictReader(io.StringIO(lab("report", "--format", "csv").out))
    assert line["name"].startswith("'=1+1")


def test_the_doctor_finds_what_is_wrong_and_says_what_to_do(lab: Berth, engine: sa.Engine) -> None:
    found = {one["what"]: one for one in lab("doctor", "--json").json()}
    assert lab("doctor").status == 1
    assert found["database"]["ok"]
    assert found["schema"]["ok"]
    assert found["ws1: LXD"]["ok"]
    assert found["ws1: GPUs"]["ok"]
    wrong = [name for name, one in found.items() if not one["ok"]]
    assert wrong == ["valkey", "ws1: agent"]
    assert all(found[name]["fix"] for name in wrong)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE gpus SET pci_address = '0000:ff:00.0' WHERE minor = 0"))
        connection.execute(sa.text("UPDATE hosts SET seen_at = now()"))
    assert [one["what"] for one in lab("doctor", "--json").json() if not one["ok"]] == ["valkey", "ws1: GPUs"]


def test_the_doctor_sees_what_gets_past_berth(lab: Berth) -> None:
    odd = InstanceSeen(
        "odd", "running", privileged=True, devices=(DeviceSeen("gpu0", "0000:01:00.0", ours=False, node=Node.PRESENT),)
    )
    own = DeviceSeen("gpu-0000-02-00-0", "0000:02:00.0", ours=True, node=Node.PRESENT)
    seen = HostSeen({"odd": odd, "m1": InstanceSeen("m1", "running", devices=(own,))})
    found = list(machines_of("ws1", seen))
    assert [(one.what, one.ok) for one in found] == [("ws1: odd", False)] * 2
    assert "privileged" in found[0].detail
    assert "lxc config device remove odd gpu0" in found[1].fix


def test_the_doctor_without_a_database(berth: Berth, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@/nothing?host=/nonexistent")
    said = berth("doctor")
    assert said.status == 1
    assert "FAIL database: not reachable" in said.out
    monkeypatch.delenv("DATABASE_URL")
    said = berth("doctor")
    assert (said.status, "make run" in said.out) == (1, True)
