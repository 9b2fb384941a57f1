"""`berth host init` run for real on a Debian on which nobody has installed anything, and what stands there afterwards:
LXD, the bridge, the agent under systemd in its unit, a machine, a GPU that comes and goes."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import make_url

from app import create_core
from app.extensions import db, transaction
from app.models import Allocation, Gpu, GpuState
from app.services import accounts, changes
from app.services.hostinit import State, units
from tests import postgres
from tests.conftest import settings_for
from tests.factories import make_booking, make_user
from tests.lab.image import image
from tests.lab.scene import second_from_now
from tests.lab.workstation import ROOT, Workstation
from tests.require import need
from tests.runtime.running import wait_for
from workers import embedded_valkey
from workers.children import stop_all

pytestmark = [pytest.mark.lab, pytest.mark.timed]  # a whole system on this kernel, with its real root: by itself

BERTH = str(Path(sys.executable).with_name("berth"))
DATABASE, VALKEY = "/srv/postgres", "/srv/valkey"  # where the workstation sees the servers of this machine
MINE = {"BERTH_DATA": "/var/lib/berth"}
AGENT = "berth-agent.service"
UNIT = f"/etc/systemd/system/{AGENT}"
IMPATIENT = "[Service]\nWatchdogSec=6\n"  # so that a test need not wait for the minutes it has
HOLD = "import time; kept = open('/dev/dri/card{}'); print('held', flush=True); time.sleep(600)"
SHARED = "/srv/team"  # to write into together
BOOKED = 3600  # seconds, if nobody ends it before


@dataclass
class Site:
    """The workstation, Berth's database as the portal sees it, and what the environment tells of it."""

    host: Workstation
    app: Flask
    addresses: dict[str, str]

    def init(self, *options: str, **environment: str) -> tuple[int, dict[str, dict[str, Any]]]:
        """A run: its exit status, and each step's outcome by its title."""
        command = (BERTH, "host", "init", "--name", "lab01", "--loop", "6", "--rate", "900", "--json", *options)
        done = self.host.run(*command, timeout=400, **environment)
        steps = json.loads(done.stdout[: done.stdout.rindex("]") + 1])
        return done.returncode, {step["step"]: step for step in steps}

    def berth(self, *command: str, timeout: float = 60) -> str:
        web = {"REDIS_URL": self.addresses["REDIS_AGENT_URL"]}  # only the portal has a login of its own
        return self.host.must(BERTH, *command, timeout=timeout, **MINE, **self.addresses, **web)

    def unit(self, name: str) -> str:
        return self.host.must("systemctl", "show", "--value", f"--property={name}", AGENT).strip()


@pytest.fixture(scope="module")
def site(lab_directory: Path, admin_url: str, template: str) -> Iterator[Site]:
    need("lab", sys.base_prefix == "/usr", "Berth is installed with a Python that a fresh Debian has not")
    folder = lab_directory / "valkey"
    folder.mkdir()
    folder.chmod(0o755)
    passwords = {"web": "web's own password", "agent": "agents-password"}
    valkey = embedded_valkey.child(folder, folder / "log", None, passwords)
    valkey.start()
    try:
        with postgres.database(admin_url, template) as url:
            there = make_url(url)
            shared = {str(there.query["host"]): DATABASE, str(folder): VALKEY}
            seen = there.update_query_dict({"host": DATABASE}).render_as_string(hide_password=False)
            addresses = {
                "DATABASE_URL": seen, "REDIS_AGENT_URL": embedded_valkey.url("agent", passwords["agent"], Path(VALKEY)),
            }  # fmt: skip
            app = create_core(settings_for(url, folder))
            with Workstation(lab_directory / "lab01", gpus=2, shared=shared) as host:
                yield Site(host, app, addresses)
            with app.app_context():
                db.engine.dispose()
    finally:
        stop_all([valkey], 5)
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def runs(site: Site) -> dict[str, tuple[int, dict[str, dict[str, Any]]]]:
    """What `berth host init` says: asked only, done without knowing where Berth is, done, and once more."""
    _write(site, "/etc/berth/agent.env", "BERTH_TICK=1\n")
    _write(site, f"{UNIT}.d/lab.conf", IMPATIENT)
    planned = site.init()
    untouched = site.host.run("sh", "-c", f"command -v lxd nft; test -e {UNIT}")
    assert (untouched.returncode, untouched.stdout) == (1, "")
    stopped = site.init("--yes")
    done = site.init("--yes", **site.addresses)
    return {"planned": planned, "stopped": stopped, "done": done, "again": site.init("--yes")}


def test_on_a_bare_debian_it_says_what_it_does_and_does_it(runs: dict[str, Any]) -> None:
    code, planned = runs["planned"]
    waits = planned.pop("host in Berth")
    assert (code, waits["state"]) == (1, State.FAILED)  # it was not told where Berth's database is
    assert {step["state"] for step in planned.values()} == {State.PLANNED}
    assert "dnsmasq-base" in planned["packages"]["lines"][1]
    done = {title for run in ("stopped", "done") for title, step in runs[run][1].items() if step["state"] == State.DONE}
    assert done | {"LXD"} == {*planned, "host in Berth"}  # LXD answered as soon as it was installed


def test_a_step_that_cannot_be_done_says_what_to_do_and_the_next_run_goes_on(runs: dict[str, Any]) -> None:
    code, steps = runs["stopped"]
    assert code == 1
    assert states(runs["stopped"])[-2:] == [State.FAILED, State.LEFT]
    assert "DATABASE_URL" in steps["host in Berth"]["todo"]
    assert states(runs["done"]) == [State.ALREADY] * (len(steps) - 2) + [State.DONE] * 2


def test_doctor_finds_nothing_bad_and_a_second_run_nothing_to_do(site: Site, runs: dict[str, Any]) -> None:
    assert runs["done"][0] == 0, site.berth("doctor")
    assert runs["again"][0] == 0
    assert set(states(runs["again"])) == {State.ALREADY}
    found = {row["what"].removeprefix("lab01: "): row for row in json.loads(site.berth("doctor", "--json"))}
    assert found["agent"]["ok"]
    assert "watched" in found["service"]["detail"]
    assert "900 Mbit/s" in found["network"]["detail"]
    assert found["restrictions"]["ok"]


def test_the_rules_are_there_again_whatever_becomes_of_nftables(site: Site, runs: dict[str, Any]) -> None:
    assert runs["done"][0] == 0
    assert "flush ruleset" in site.host.must("cat", "/etc/nftables.conf"), "as Debian has it"
    for what in ("start", "reload", "restart", "stop"):
        site.host.must("systemctl", what, "nftables")
        wait_for(lambda: site.host.run("nft", "list", "table", "inet", "berth").returncode == 0, 30, what)


def test_lxd_refuses_what_undoes_a_machine(site: Site, runs: dict[str, Any]) -> None:
    assert runs["done"][0] == 0
    _import(site)
    for setting in ("security.privileged=true", "security.nesting=true", "raw.lxc=lxc.tty.max=1"):
        done = site.host.run("lxc", "init", "base", "outside", "-c", setting)
        assert "forbidden" in done.stdout


def test_a_gpu_comes_and_goes_by_an_agent_that_may_do_no_more_than_its_unit_says(
    site: Site, runs: dict[str, Any]
) -> None:
    assert runs["done"][0] == 0
    _import(site)
    with site.app.app_context(), transaction():
        make_user("liwei")
    site.berth("instance", "create", "beta", "--host", "lab01", "--image", "base", "--owner", "liwei", timeout=200)
    with site.app.app_context(), transaction():
        gpu = db.session.scalars(db.select(Gpu).order_by(Gpu.minor)).first()
        assert gpu is not None
        start = second_from_now(0)
        window = (datetime.fromtimestamp(moment, UTC) for moment in (start, start + BOOKED))
        booking = make_booking(accounts.get("liwei"), [gpu], *window).id
        number, minor = gpu.id, gpu.minor
    node = f"/dev/nvidia{minor}"
    wait_for(lambda: _inside(site, "test", "-c", node), 30, "the GPU is in the machine")
    site.host.must("lxc", "exec", "beta", "--", "systemd-run", "--unit=hold", "python3", "-c", HOLD.format(minor))
    held = "journalctl --unit=hold | grep --quiet held"
    wait_for(lambda: _inside(site, "sh", "-c", held), 20, "somebody holds it")
    with site.app.app_context(), transaction():
        changes.end_now(accounts.get("liwei"), booking)
    wait_for(lambda: not _inside(site, "test", "-c", node), 40, "the GPU is taken away")
    wait_for(lambda: not _inside(site, "systemctl", "is-active", "hold"), 30, "who held it is ended")

    def settled() -> str | None:
        with site.app.app_context():
            found = db.session.get(Gpu, number)
            over = db.session.scalars(db.select(Allocation).where(Allocation.gpu_id == number)).one()
            return found.state if found and over.detached_at else None

    assert wait_for(settled, 40, "the booking is over") == GpuState.IN_SERVICE


def test_the_unit_leaves_the_agent_what_it_needs_and_little_more(site: Site, runs: dict[str, Any]) -> None:
    assert runs["done"][0] == 0
    for words in (["mkdir"], ["mount", "--bind", SHARED], ["mount", "-o", "remount,bind,nosuid,nodev"]):
        site.host.must(*words, SHARED)
    text = units.AGENT.format(name="lab01", berth=BERTH, environment="/etc/berth/agent.env")
    probe = (
        f"{sys.executable} -m tests.lab.unit_probe {SHARED}\nWorkingDirectory={ROOT}\nStandardOutput=file:/run/probe"
    )
    text = text.replace(f"{BERTH} agent lab01", probe).replace("Restart=always", "Restart=no")
    _write(site, "/etc/systemd/system/probe.service", text.replace("Type=notify", "Type=oneshot"))
    site.host.must("systemctl", "daemon-reload")
    site.host.must("systemctl", "start", "probe")
    may, may_not = json.loads(site.host.must("cat", "/run/probe"))
    assert set(may.values()) == {""}, may
    assert all(may_not.values()), may_not
    rated = site.host.run("systemd-analyze", "security", "--no-pager", "--threshold=49", AGENT)
    assert rated.returncode == 0, rated.stdout.splitlines()[-1]


def test_an_agent_that_hangs_is_started_anew(site: Site, runs: dict[str, Any]) -> None:
    assert runs["done"][0] == 0
    assert (site.unit("Type"), site.unit("WatchdogUSec"), site.unit("ActiveState")) == ("notify", "6s", "active")
    before = site.unit("MainPID")
    restarts = int(site.unit("NRestarts"))
    site.host.must("kill", "-STOP", before)
    wait_for(lambda: int(site.unit("NRestarts")) > restarts, 30, "systemd heard nothing of it")
    wait_for(lambda: site.unit("ActiveState") == "active", 60, "the new one has made a pass")
    assert site.unit("MainPID") != before
    assert "watchdog" in site.host.must("journalctl", "--unit", AGENT, "--no-pager").lower()


def _write(site: Site, path: str, text: str) -> None:
    place = site.host.root / path.lstrip("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)


def _import(site: Site) -> None:
    """An image for machines, unless it is there."""
    if "base" not in site.host.must("lxc", "image", "list", "--format", "csv"):
        shutil.copy(image(), site.host.root / "var/tmp/base.tar.gz")
        site.host.must("lxc", "image", "import", "/var/tmp/base.tar.gz", "--alias", "base")
        site.berth("host", "sync", "lab01")


def _inside(site: Site, *command: str) -> bool:
    return site.host.run("lxc", "exec", "beta", "--", *command).returncode == 0


def states(run: tuple[int, dict[str, dict[str, Any]]]) -> list[str]:
    return [step["state"] for step in run[1].values()]
