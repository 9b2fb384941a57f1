"""The contract's two subjects: the simulated host always, a real LXD where there is one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from app.drivers import asked
from app.drivers.base import GpuInfo, InstanceSeen, InstanceSpec, LxdDriver
from app.drivers.fake import FakeLxd
from app.drivers.holders.host import HostKernel
from app.drivers.lxd import PylxdDriver
from tests.drivers.boxes import Box, unique
from tests.drivers.misbehaving import Server
from tests.drivers.nvml_stub import Stub, build
from tests.lab.lab import Lab


@dataclass
class Subject:
    """A driver, and what only the one who set it up can do to its host."""

    driver: LxdDriver
    gpus: list[GpuInfo]
    away: LxdDriver
    unique: Callable[[], str]
    _put: Callable[[str, str], None]  # an instance made past the driver: privileged, stopped or half-made
    made: list[str] = field(default_factory=list)

    def name(self) -> str:
        """A free name; what gets it is removed after the test."""
        self.made.append(self.unique())
        return self.made[-1]

    def spec(self, name: str = "", owner: str = "alice", image: str = "base") -> InstanceSpec:
        return InstanceSpec(name or self.name(), image, cpus=1, memory_mib=256, disk_gib=2, owner=owner)

    def machine(self) -> str:
        """A running instance that Berth made."""
        spec = self.spec()
        self.driver.create(spec, lambda _step, _percent: None)
        return spec.name

    def put(self, kind: str) -> str:
        name = self.name()
        self._put(name, kind)
        return name

    def seen(self, name: str) -> InstanceSeen:
        return self.driver.observe(frozenset({name})).instances[name]


def simulated(path: Path) -> Subject:
    host, away = FakeLxd(path / "ws1.json", gpus=2, pace=0), FakeLxd(path / "ws2.json", pace=0)
    away.unreachable()
    numbers = iter(range(100))

    def put(name: str, kind: str) -> None:
        if kind == "privileged":
            host.add_instance(name, privileged=True)
        else:
            host.add_instance(name, "stopped", owner="alice" if kind == "half-made" else "")

    return Subject(host, host.gpus(), away, lambda: f"t-{next(numbers)}", put)


def real(host: Lab) -> Subject:
    options = {
        "privileged": ["launch", "-c", "security.privileged=true"],
        "stopped": ["init"],
        "half-made": ["init", "-c", "user.berth.owner=alice", "-c", "security.idmap.isolated=true"],
    }

    def put(name: str, kind: str) -> None:
        command, *rest = options[kind]
        host.lxc(command, "base", name, *rest)

    away = PylxdDriver(str(host.directory / "nobody.socket"))
    return Subject(PylxdDriver(str(host.socket)), host.gpus, away, host.unique, put)


@pytest.fixture(params=["simulated", pytest.param("real", marks=pytest.mark.lab)])
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Subject]:
    if request.param == "simulated":
        yield simulated(tmp_path)
        return
    host: Lab = request.getfixturevalue("lab").ws1
    found = real(host)
    yield found
    host.remove(*found.made)


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An NVML that says what a test wants."""
    return build(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def stub(nvml_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stub:
    monkeypatch.setattr(asked, "GONE", 20.0)  # on a busy machine
    return Stub(nvml_library, tmp_path / "nvml.state")


# An LXD that is none.


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(str(tmp_path / "unix.socket")) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def driver(server: Server) -> PylxdDriver:
    return PylxdDriver(str(server.server_address))


# The real kernel's: each file says which kernel.


@pytest.fixture
def box(kernel: HostKernel) -> Iterator[Box]:
    made = Box(unique())
    yield made
    made.remove()


@pytest.fixture
def other(kernel: HostKernel) -> Iterator[Box]:
    made = Box(unique())
    yield made
    made.remove()
