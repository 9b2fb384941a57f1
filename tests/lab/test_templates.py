"""Templates on a real LXD: built, failed, built again, and what machines of one template do not share."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.drivers.images import Origin
from app.drivers.inside import Command
from app.models import OperationState, TemplateKind, TemplateState
from app.services.recipes import steps
from tests.lab.kitchen import Kitchen
from tests.lab.lab import Lab
from tests.lab.looking import connect
from tests.lab.scene import scene
from tests.runtime.running import wait_for

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def kitchen(lab_directory: Path) -> Iterator[Kitchen]:
    with Lab(lab_directory / "kitchen", gpus=1, bridge=True) as host, scene(host, BERTH_TICK="5") as berth:
        yield Kitchen(berth, host)


@pytest.fixture(scope="module")
def base(kitchen: Kitchen) -> int:
    """A template of the lab's own image, which was away at the first try."""
    kitchen.host.lxc("image", "alias", "rename", "base", "elsewhere")
    number = kitchen.ask("base", TemplateKind.IMAGE, "base")
    template, operation = kitchen.over(number)
    kitchen.host.lxc("image", "alias", "rename", "elsewhere", "base")
    assert template.state == TemplateState.FAILED
    assert "no image 'base' on this host" in operation.error
    assert kitchen.left() == set()
    kitchen.again(number)
    assert kitchen.ready(number).size_bytes > 10_000_000
    assert kitchen.left() == {f"berth-template-{number}"}
    return number


def test_two_machines_of_one_template_share_no_key_and_no_identity(kitchen: Kitchen, base: int) -> None:
    one, other = kitchen.machine(base), kitchen.machine(base)
    for name in (one, other):
        kitchen.answers(name, "ssh", 60)
    look = "cat /etc/machine-id; cut -d' ' -f2 /etc/ssh/ssh_host_*.pub; hostname"
    first, second = (kitchen.host.run(name, "sh", "-c", look).split() for name in (one, other))
    assert len(first) == len(second) == 5
    assert not set(first) & set(second)
    assert (first[-1], second[-1]) == (one, other)
    assert [len(found[0]) for found in (first, second)] == [32, 32]


def test_a_step_that_fails_is_said_at_once_and_leaves_nothing(kitchen: Kitchen, base: int) -> None:
    number = kitchen.ask("bad", TemplateKind.RECIPE, "desktop", packages=("no-such-package",))
    template, operation = kitchen.over(number, 120)
    assert (template.state, operation.state) == (TemplateState.FAILED, OperationState.FAILED)
    assert "Step sources: E: Unable to locate package no-such-package" in operation.error
    assert "InRelease" in operation.log, "it got as far as the mirror"
    assert kitchen.left() == {f"berth-template-{base}"}
    kitchen.retire(number)
    kitchen.over(number)


def test_an_agent_killed_half_way_leaves_no_orphan(kitchen: Kitchen, base: int) -> None:
    number = kitchen.ask("killed", TemplateKind.IMAGE, "base")
    wait_for(lambda: f"berth-build-{number}" in kitchen.left(), 30, "a builder")
    (agent,) = kitchen.berth.berth.pids("workers agent")
    os.kill(agent, signal.SIGKILL)
    kitchen.ready(number, 90)
    assert kitchen.left() == {f"berth-template-{number}", f"berth-template-{base}"}
    kitchen.retire(number)
    kitchen.ready(number)
    assert kitchen.left() == {f"berth-template-{base}"}


def test_a_host_without_a_network_has_one_while_it_builds(lab_directory: Path) -> None:
    with Lab(lab_directory / "lonely", gpus=0) as host:
        driver, number = connect(host), 7
        builder = driver.prepare(number, Origin(alias="base"), lambda _step, _percent: None)
        (network, sources, *_) = steps("base", {})
        for step in (network, sources):
            answer = driver.run(
                builder, Command(("/bin/sh", "-c", step.script), step.environment, limit=90, most=1 << 20)
            )
            assert answer.well, answer.text
        assert "InRelease" in answer.text
        driver.scrap(number)
        left = [one["name"] for one in json.loads(host.lxc("network", "list", "--format", "json")) if one["managed"]]
        assert left == []
