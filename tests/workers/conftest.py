"""What the tests of passes have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest
from flask import Flask

from app.drivers.fake import FakeLxd
from app.drivers.fake_kernel import FakeKernel
from tests.drivers.conftest import nvml_library, stub  # noqa: F401 - an NVML that says what a test wants
from tests.drivers.nvml_stub import Stub
from tests.factories import gpus_of, make_host, make_instance, make_user
from tests.workers.house import NOW, House
from tests.workers.measuring import Kernel
from workers.evictor import Evictor
from workers.handover import Hands
from workers.sampler import Sampler


@pytest.fixture
def house(app: Flask, tmp_path: Path, freeze: Callable[[datetime], None]) -> Iterator[House]:
    freeze(NOW)
    lxd = FakeLxd(tmp_path / "lab.json", pace=0)
    host = make_host("lab")
    alice, bob = make_user("alice"), make_user("bob")
    for person in (alice, bob):
        make_instance(person, host, person.username)
        lxd.add_instance(person.username, owner=person.username)
    kernel = FakeKernel(tmp_path / "lab.json")
    hands = Hands(Evictor(lxd, kernel))
    yield House(lxd=lxd, kernel=kernel, hands=hands, host=host, gpus=gpus_of(host), alice=alice, bob=bob)
    hands.close()


@pytest.fixture
def sampler(app: Flask, house: House) -> Sampler:
    return Sampler(app.extensions["berth"], "lab", house.hands.evictor)


@pytest.fixture
def kernel(stub: Stub) -> Iterator[Kernel]:  # noqa: F811 - pytest brings it by its name
    made = Kernel(stub.gauges())
    yield made
    made.gauges.close()
