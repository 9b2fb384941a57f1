"""NVIDIA's libraries in a real machine: found by its linker, read-only, and renewed while it runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from app.drivers.base import GiveUp, InstanceSpec
from app.drivers.libraries import Brought, Way, Why
from app.drivers.lxd import libraries
from app.services import checkup
from app.services.checkup import BAD, OK, WARN, Finding, Known
from tests.lab.fixtures import Hosts
from tests.lab.lab import Lab
from tests.lab.lent import LOADED, WHICH, listing
from tests.lab.looking import connect

pytestmark = pytest.mark.lab

OLD = "570.1.2"  # another driver's than the lab's


@pytest.fixture
def driver(tmp_path: Path, lab: Hosts, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """`driver(version)`: what the host's linker lists is of this version from now on."""

    def use(version: str) -> None:
        text = listing(tmp_path, version)
        monkeypatch.setattr(libraries, "listed", lambda: text)

    return use


def test_a_machine_finds_the_libraries_of_the_loaded_driver(lab: Hosts, driver: Callable[[str], None]) -> None:
    host, to = lab.ws2, connect(lab.ws2)
    driver(OLD)
    assert to.bring_libraries() == Brought(Way.INSTALL, Why.NO_FILES, LOADED)  # nothing of the driver's version
    libraries.fill(host.lxd_dir, OLD, libraries.listed())  # as an older driver would have left it
    (host.lxd_dir / libraries.FOLDER / "way").write_text(Way.MOUNT)
    name = host.unique()
    try:
        to.create(InstanceSpec(name, "base", cpus=1, memory_mib=256, disk_gib=2, owner="alice"), lambda *_: None)
        assert host.run(name, "python3", "-c", WHICH) == "570\n"
        assert [(one.level, one.what) for one in about(host, name)] == [
            (WARN, "NVIDIA libraries"),
            (BAD, f"machine {name}"),
        ]
        driver(LOADED)
        assert to.bring_libraries() == Brought(Way.MOUNT, Why.NO_TOOLS, LOADED)
        assert host.run(name, "python3", "-c", WHICH) == "580\n"
        assert [(one.level, one.detail.split(",")[0]) for one in about(host, name)] == [(OK, LOADED)]
        assert "Read-only" in host.run(name, "touch", "/usr/local/nvidia/lib/x")
        assert "Read-only" in host.run(name, "sh", "-c", "echo > /etc/ld.so.conf.d/00-berth-nvidia.conf")
    finally:
        host.remove(name)
        (host.lxd_dir / libraries.FOLDER / "way").unlink(missing_ok=True)


def test_a_machine_that_was_made_without_them_is_lent_the_libraries_while_it_runs(
    lab: Hosts, driver: Callable[[str], None]
) -> None:
    host, to = lab.ws2, connect(lab.ws2)
    name, stopped = host.unique(), host.unique()
    try:
        for one in (name, stopped):
            to.create(InstanceSpec(one, "base", cpus=1, memory_mib=256, disk_gib=2, owner="alice"), lambda *_: None)
        to.stop(stopped, force=True)
        with pytest.raises(GiveUp, match="brings no libraries"):
            to.lend_libraries(name)
        driver(LOADED)
        assert to.bring_libraries().way is Way.MOUNT
        assert not to.lend_libraries(name)
        assert host.run(name, "python3", "-c", WHICH) == "580\n"
        before = host.run(name, "stat", "-c", "%Z", "/etc/ld.so.cache")
        assert not to.lend_libraries(name)
        assert host.run(name, "stat", "-c", "%Z", "/etc/ld.so.cache") == before
        assert to.lend_libraries(stopped)
        to.start(stopped)
        assert host.run(stopped, "python3", "-c", WHICH) == "580\n"
        assert not to.lend_libraries(stopped)
        libraries.fill(host.lxd_dir, OLD, driver(OLD) or libraries.listed())  # as if the host had another driver
        assert host.run(name, "python3", "-c", WHICH) == "570\n"
    finally:
        host.remove(name)
        host.remove(stopped)
        (host.lxd_dir / libraries.FOLDER / "way").unlink(missing_ok=True)


def about(host: Lab, name: str) -> list[Finding]:
    found = checkup.findings(connect(host).examine(), Known("ws2", instances=frozenset({name})))
    return [one for one in found if one.what in {"NVIDIA libraries", f"machine {name}"}]
