"""Fixtures for everything that wants a real LXD; loaded for all tests, started by the first that asks."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.lab.image import ensure_packages, image
from tests.lab.lab import Lab, new_directory
from tests.lab.remains import sweep
from tests.require import need


class Hosts(NamedTuple):
    """Two workstations. Both have GPUs at 0000:01:00.0 and 0000:02:00.0; their minors differ."""

    ws1: Lab
    ws2: Lab


def why_no_lab() -> str:
    """Why this machine cannot run a lab, or nothing."""
    if why := ensure_packages():
        return why
    if not Path("/dev/loop-control").exists():
        return "no loop devices"
    if subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode:
        return "mount namespaces are not allowed here"
    return ""


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """LXD on a busy machine may take longer for a detach than the agent waits for it."""
    monkeypatch.setattr("app.drivers.lxd.DETACH_TIMEOUT", 40.0)


@pytest.fixture(scope="session")
def lab_directory() -> Iterator[Path]:
    """Where the labs of this run live; skips where there can be none."""
    why = why_no_lab()
    need("lab", not why, why)
    sweep()
    image()
    folder = new_directory()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def lab(lab_directory: Path) -> Iterator[Hosts]:
    """Two daemons as two hosts with two GPUs each."""
    hosts = Hosts(Lab(lab_directory / "ws1", gpus=2), Lab(lab_directory / "ws2", gpus=2))
    with ThreadPoolExecutor() as pool:
        started = [pool.submit(host.up) for host in hosts]
    try:
        for future in started:
            future.result()
        yield hosts
    finally:
        for host in hosts:
            host.down()


@pytest.fixture(scope="session")
def big_lab(lab_directory: Path) -> Iterator[Lab]:
    """One host with eight GPUs, each with a /dev/dri/cardN that can really be opened."""
    with Lab(lab_directory / "big", gpus=8, readable=True) as host:
        yield host


@pytest.fixture
def launch(lab: Hosts) -> Iterator[Callable[..., str]]:
    """`launch(host, *options)` starts an instance and returns its name; it is gone after the test."""
    made: list[tuple[Lab, str]] = []

    def start(host: Lab, *options: str, name: str = "", owner: str = "") -> str:
        name = name or host.unique()
        made.append((host, name))
        return host.launch(name, *options, owner=owner)

    yield start
    for host, name in made:
        host.remove(name)
