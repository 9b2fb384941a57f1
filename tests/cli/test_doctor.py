"""The doctor: what it finds, what it says to do, and how it ends."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import sqlalchemy as sa

from app.drivers.fake import FakeLxd
from tests.certificates import certificate
from tests.cli.conftest import Berth


@pytest.fixture
def host(lab: Berth, environment: Path) -> FakeLxd:
    """The simulated host of `lab`."""
    return FakeLxd(environment / "sim" / "ws1.json")


@pytest.fixture
def healthy(lab: Berth, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> Berth:
    """Valkey and an agent seem to be there."""
    all_there(engine, monkeypatch)
    return lab


def all_there(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.queue.reachable", lambda _url="": True)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE hosts SET seen_at = now()"))


def not_offered(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE hosts SET enabled = false"))


def found(berth: Berth, *options: str) -> list[tuple[str, str]]:
    """Level and subject of all that is not well."""
    return [(one["level"], one["what"]) for one in berth("doctor", "--json", *options).json() if not one["ok"]]


def test_what_is_missing_and_what_to_do(lab: Berth, engine: sa.Engine) -> None:
    every = {one["what"]: one for one in lab("doctor", "--json").json()}
    assert lab("doctor").status == 1
    for name in ("database", "schema", "clock", "ws1: LXD", "ws1: GPUs", "ws1: fence", "ws1: machines"):
        assert every[name]["ok"], name
    wrong = [name for name, one in every.items() if not one["ok"]]
    assert wrong == ["valkey", "ws1: agent"]
    assert all(every[name]["fix"] for name in wrong)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE gpus SET pci_address = '0000:ff:00.0' WHERE minor = 0"))
        connection.execute(sa.text("UPDATE hosts SET seen_at = now()"))
    assert found(lab) == [("bad", "valkey"), ("bad", "ws1: GPUs"), ("warn", "ws1: GPUs")]


def test_all_well_is_said_and_exits_with_0(lab: Berth, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    made = lab("instance", "create", "m1", "--host", "ws1", "--image", "base", "--owner", "liwei")  # by no agent
    assert made.status == 0, made.err
    all_there(engine, monkeypatch)
    said = lab("doctor", "--strict")
    assert said.status == 0, said.out
    assert "ok   ws1: machines: nothing to object to in 1 of 1" in said.out
    assert "FAIL" not in said.out + said.err


def test_a_certificate_for_rdp_files_that_does_not_do(
    healthy: Berth, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def said() -> tuple[str, str]:
        every = {one["what"]: one for one in healthy("doctor", "--json").json()}
        return every["signing .rdp files"]["level"], every["signing .rdp files"]["detail"]

    monkeypatch.setattr("app.cli.doctor.PORTAL_USER", "no-such-user")
    cert, key = certificate(tmp_path, "Vision Lab")
    monkeypatch.setenv("BERTH_RDP_CERT", str(cert))
    assert said() == ("bad", "BERTH_RDP_KEY is not set: they go out unsigned")
    monkeypatch.setenv("BERTH_RDP_KEY", str(key))
    assert said()[0] == "ok"
    assert said()[1].startswith("as Vision Lab, until 20")
    if os.geteuid() == 0:  # then the portal has a user of its own; this one cannot pass pytest's directory
        monkeypatch.setattr("app.cli.doctor.PORTAL_USER", "nobody")
        assert said() == ("bad", f"nobody, whom the portal runs as, cannot read {cert}: they go out unsigned")
        monkeypatch.setattr("app.cli.doctor.PORTAL_USER", "no-such-user")
    certificate(tmp_path, days=20)
    assert said()[0] == "warn"
    certificate(tmp_path, days=1)
    assert "is valid from" in said()[1]
    assert said()[0] == "bad"
    key.unlink()
    assert "cannot be read" in said()[1]


def test_a_zone_of_this_machines_own_is_told_from_the_labs(
    healthy: Berth, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def said() -> tuple[str, str]:
        [one] = [one for one in healthy("doctor", "--json").json() if one["what"] == "zone"]
        return one["level"], one["detail"]

    assert said()[0] == "ok"  # nothing is written yet
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE policies SET zone = 'Asia/Shanghai'"))
    assert said() == ("ok", "Asia/Shanghai, the lab's")
    monkeypatch.setenv("BERTH_TZ", "UTC")
    assert said() == ("warn", "Asia/Shanghai, the lab's: BERTH_TZ=UTC here counts for nothing")
    monkeypatch.delenv("BERTH_TZ")
    assert said()[0] == "ok"


def test_a_machine_that_is_not_safe(healthy: Berth, host: FakeLxd) -> None:
    host.add_instance("odd", privileged=True)
    host.plug("odd", "gpu0", "0000:01:00.0")
    said = healthy("doctor")
    assert said.status == 1
    lines = said.out.splitlines()
    [place] = [n for n, line in enumerate(lines) if "privileged" in line and line.startswith("FAIL ws1: machine odd")]
    assert lines[place + 1] == "     lxc config set odd security.privileged=false && lxc restart odd"
    assert "     lxc config device remove odd gpu0" in lines


def test_warnings_alone_end_well_unless_strict(healthy: Berth, host: FakeLxd) -> None:
    host.report(apparmor=False)
    assert found(healthy) == [("warn", "ws1: AppArmor")]
    assert healthy("doctor").status == 0
    assert healthy("doctor", "--strict").status == 1
    assert "warn ws1: AppArmor" in healthy("doctor").out


def test_what_could_not_be_seen_is_not_called_well(healthy: Berth, host: FakeLxd) -> None:
    host.report(unseen=["which ports are taken"], fence="")
    assert found(healthy) == [("bad", "ws1: fence"), ("warn", "ws1: not seen")]
    said = healthy("doctor").out
    assert "which ports are taken" in said
    assert "as root" in said


def test_libraries_and_names_from_a_machine_cannot_steer_the_terminal(healthy: Berth, host: FakeLxd) -> None:
    host.add_instance("odd")
    host.report(libraries={"odd": ["550.\x9b31m"]})
    said = healthy("doctor").out
    assert "NVML error 18" in said
    assert "\x9b" not in said


def test_a_host_that_cannot_be_reached_from_here(healthy: Berth, host: FakeLxd, engine: sa.Engine) -> None:
    host.unreachable()
    assert found(healthy) == [("bad", "ws1: LXD")]
    kept = [{"level": "warn", "what": "AppArmor", "detail": "off", "fix": "on"}]
    with engine.begin() as connection:
        update = sa.text("UPDATE hosts SET checked_at = now(), findings = CAST(:kept AS jsonb)")
        connection.execute(update, {"kept": json.dumps(kept)})
    assert found(healthy) == [("warn", "ws1: LXD"), ("warn", "ws1: AppArmor")]
    assert "its agent found" in healthy("doctor").out
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE hosts SET checked_at = now() - interval '1 hour'"))
    assert found(healthy) == [("bad", "ws1: LXD")]


def test_a_host_that_nobody_counts_on_may_be_switched_off(healthy: Berth, host: FakeLxd, engine: sa.Engine) -> None:
    host.unreachable()
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE hosts SET seen_at = NULL, trouble = 'Connect to LXD: refused'"))
    wrong = [("bad", "ws1: agent"), ("bad", "ws1: last pass"), ("bad", "ws1: LXD")]
    assert found(healthy) == wrong
    not_offered(engine)
    said = healthy("doctor", "--strict")
    assert said.status == 0, said.out
    why = "no matter, since it is not offered and has no booking left"
    assert f"ok   ws1: agent: never seen: {why}" in said.out
    with engine.begin() as connection:
        booked = """INSERT INTO bookings (user_id, account_id, host_id, starts_at, ends_at, booked_until)
            SELECT users.id, accounts.id, hosts.id, now(), now() + interval '1 hour', now() + interval '1 hour'
            FROM users, accounts, hosts LIMIT 1"""
        connection.execute(sa.text(booked))
    assert found(healthy) == wrong


def test_a_host_that_is_not_offered_is_looked_at_all_the_same(healthy: Berth, host: FakeLxd, engine: sa.Engine) -> None:
    not_offered(engine)
    host.add_instance("odd", privileged=True)
    assert ("bad", "ws1: machine odd") in found(healthy)


def test_without_a_database(berth: Berth, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@/nothing?host=/nonexistent")
    said = berth("doctor")
    assert said.status == 1
    assert "FAIL database: not reachable" in said.out
    monkeypatch.delenv("DATABASE_URL")
    said = berth("doctor")
    assert (said.status, "make run" in said.out) == (1, True)
