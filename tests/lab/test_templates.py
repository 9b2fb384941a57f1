"""Templates on a real LXD: built, failed, built again, and what machines of one template do not share."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import socket
import tarfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from app.drivers.images import Origin
from app.drivers.inside import Command
from app.extensions import db
from app.models import Operation, OperationState, TemplateKind, TemplateState
from app.services.recipes import steps
from app.services.template_rules import Wish
from tests.lab.image import image
from tests.lab.image_server import ImageServer
from tests.lab.kitchen import Kitchen
from tests.lab.lab import Lab
from tests.lab.looking import connect
from tests.lab.scene import scene
from tests.runtime.running import wait_for

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def server(lab_directory: Path) -> Iterator[ImageServer]:
    with ImageServer(lab_directory / "images", image("networked")) as found, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(found.certificate))  # LXD believes it
        yield found


@pytest.fixture(scope="module")
def kitchen(lab_directory: Path, server: ImageServer) -> Iterator[Kitchen]:
    more = {"BERTH_IMAGE_SERVERS": f"near={server.url}", "BERTH_IMPORT_ANYWAY": "1"}
    with Lab(lab_directory / "kitchen", gpus=1, bridge=True) as host, scene(host, BERTH_TICK="5", **more) as berth:
        # This process asks for templates as the portal would, which knows the same servers.
        berth.app.extensions["berth"] = replace(berth.app.extensions["berth"], image_servers={"near": server.url})
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
    kitchen.amend(number, Wish("bad", TemplateKind.RECIPE, "desktop", packages=("less",)))
    query = db.select(Operation.log).where(Operation.template_id == number).order_by(Operation.id.desc())
    said = wait_for(
        lambda: "== base\n" in (log := kitchen.berth.ask(lambda: db.session.scalar(query)) or "") and log, 120
    )
    assert "== sources took" in said, "past what failed; all the rest would take minutes"
    kitchen.host.remove(f"berth-build-{number}")
    kitchen.over(number)
    kitchen.retire(number)
    kitchen.over(number)


def test_an_agent_killed_half_way_leaves_no_orphan(kitchen: Kitchen, base: int) -> None:
    number = kitchen.ask("killed", TemplateKind.IMAGE, "base")
    wait_for(lambda: f"berth-build-{number}" in kitchen.left(), 30, "a builder")
    agent = kitchen.berth.berth.pids("workers agent")[0]
    os.kill(agent, signal.SIGKILL)
    kitchen.ready(number)
    assert kitchen.left() == {f"berth-template-{number}", f"berth-template-{base}"}
    kitchen.retire(number)
    kitchen.ready(number)
    assert kitchen.left() == {f"berth-template-{base}"}


def test_an_image_of_a_server_that_goes_away_and_comes_back(kitchen: Kitchen, base: int, server: ImageServer) -> None:
    kept = {f"berth-template-{base}"}
    for alias, words in (("nothing", "couldn't be found"), ("gone", "404"), ("broken", "EOF")):
        number = kitchen.ask("far", TemplateKind.IMAGE, f"near:{alias}")
        template, operation = kitchen.over(number)
        assert template.state == TemplateState.FAILED
        assert f"Fetch {alias} from {server.url}: " in operation.error
        assert words in operation.error
        assert "Is the server up" in operation.error
        assert kitchen.left() == kept
        if alias != "broken":
            kitchen.retire(number)
            kitchen.over(number)
    server.mended.set()
    kitchen.again(number)
    kitchen.ready(number)
    assert kitchen.left() == {*kept, f"berth-template-{number}"}, "what was fetched is gone, what was made of it is not"
    kitchen.retire(number)
    kitchen.ready(number)


def test_a_build_whose_server_says_nothing_is_cancelled(kitchen: Kitchen, base: int, server: ImageServer) -> None:
    kept, before = {f"berth-template-{base}"}, kitchen.going()
    server.asked.clear()
    number = kitchen.ask("silent", TemplateKind.IMAGE, "near:silent")
    assert server.asked.wait(60), "it is being fetched"
    began = time.monotonic()
    kitchen.cancel(number)
    template, operation = kitchen.over(number, 30)
    print(f"cancelled while fetching: over after {time.monotonic() - began:.1f} s")
    assert (template.state, operation.error) == (TemplateState.FAILED, "Cancelled by system.")
    assert server.left.wait(30), "LXD fetches it no more"
    wait_for(lambda: kitchen.going() <= before, 30, "LXD's own work on it ends")
    assert kitchen.left() == kept
    kitchen.retire(number)
    kitchen.over(number)


def test_a_build_whose_mirror_says_nothing_is_cancelled(kitchen: Kitchen, base: int) -> None:
    with socket.create_server((kitchen.host.gateway, 0)) as mirror:
        mirror.settimeout(120)
        url = f"http://{kitchen.host.gateway}:{mirror.getsockname()[1]}/debian"
        number = kitchen.ask("silent", TemplateKind.RECIPE, "base", mirror=url)
        mirror.accept()[0].close()  # once; from now on nobody answers
        began = time.monotonic()
        kitchen.cancel(number)
        template, operation = kitchen.over(number, 30)
    print(f"cancelled in a step: over after {time.monotonic() - began:.1f} s")
    assert (template.state, operation.error) == (TemplateState.FAILED, "Cancelled by system.")
    assert "== sources\n" in operation.log
    assert kitchen.left() == {f"berth-template-{base}"}
    kitchen.retire(number)
    kitchen.over(number)


def test_an_image_that_the_host_has_anyway_stays(kitchen: Kitchen, server: ImageServer) -> None:
    before = kitchen.host.lxc("image", "list", "--format", "csv", "--columns", "Lf")
    driver, far = connect(kitchen.host), Origin(alias="good", server=server.url)
    found = {"type": "image", "mode": "pull", "protocol": "simplestreams", "server": server.url, "alias": "good"}
    driver._wire.send("post", "images", json={"source": found}, limit=60.0)  # by hand, some time ago
    time.sleep(1.1)  # LXD writes down whole seconds
    driver.prepare(99, far, lambda _step, _percent: None)
    driver.scrap(99)
    (mine,) = kitchen.left() - {name for name in kitchen.left() if name.startswith("berth-")}
    kitchen.host.lxc("image", "delete", mine.removeprefix("image "))
    assert kitchen.host.lxc("image", "list", "--format", "csv", "--columns", "Lf") == before


def test_a_file_is_looked_through_and_an_agent_killed_meanwhile_leaves_nothing(kitchen: Kitchen, base: int) -> None:
    path = kitchen.shelf / "brought.tar"
    words = {"architecture": os.uname().machine, "creation_date": 1, "properties": {"os": "Debian", "x": "y"}}
    words["templates"] = {"/etc/owned": {"when": ["create", "copy", "start"], "template": "evil.tpl"}}
    with_evil(image("networked"), path, words)
    number = kitchen.ask("brought", TemplateKind.FILE, path.name)
    wait_for(lambda: f".berth-{number}.tar" in kitchen.left(), 30, "it is being looked through")
    agent = kitchen.berth.berth.pids("workers agent")[0]
    os.kill(agent, signal.SIGKILL)
    template = kitchen.ready(number)
    assert kitchen.left() == {f"berth-template-{base}", f"berth-template-{number}"}
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert template.options == {"checksum": "", "sha256": digest}
    assert template.driver_version == "550.54.14", "as the name of a file in it says"
    name = kitchen.host.unique()
    kitchen.host.lxc("init", template.image, name)
    told = json.loads(kitchen.host.lxc("query", f"/1.0/instances/{name}/metadata"))
    assert not told.get("templates"), "nobody writes into machines as root by an image"
    kitchen.host.remove(name)
    kitchen.retire(number)
    kitchen.ready(number)


def test_a_builder_that_boots_late_is_sealed_when_it_has_booted(kitchen: Kitchen) -> None:
    """Else systemd writes down a machine id after it was taken out, and all machines of the template have it."""
    lxc, name, script = kitchen.host.lxc, kitchen.host.unique(), "#!/bin/sh\nsleep 3\nexec /lib/systemd/systemd\n"
    lxc("launch", "base", name)
    change = f"rm /sbin/init; printf '{script}' > /sbin/init; chmod 755 /sbin/init; : > /etc/machine-id"
    kitchen.host.run(name, "sh", "-c", change.replace("\n", "\\n"))
    lxc("stop", "--force", name)
    driver, number = connect(kitchen.host), 98
    builder = driver.prepare(number, Origin(instance=name), lambda _step, _percent: None)
    try:
        (seal,) = steps("", {})
        answer = driver.run(builder, Command(("/bin/sh", "-c", seal.script), seal.environment, limit=90, most=1 << 20))
        assert answer.well, answer.text
        look = "until systemctl is-system-running 2>&1 | grep -qE 'running|degraded'; do sleep 0.1; done; echo booted"
        assert kitchen.host.run(builder, "sh", "-c", f"{look}; cat /etc/machine-id").split() == ["booted"]
    finally:
        driver.scrap(number)
        kitchen.host.remove(name)


def test_a_full_pool_is_said_and_leaves_nothing(kitchen: Kitchen, base: int) -> None:
    lxc, kept = kitchen.host.lxc, {f"berth-template-{base}"}
    lxc("storage", "create", "tiny", "btrfs", "size=768MiB")
    lxc("profile", "device", "set", "default", "root", "pool=tiny")
    try:
        with kitchen.host.filled("tiny"):
            number = kitchen.ask("large", TemplateKind.IMAGE, "base")
            template, operation = kitchen.over(number)
            assert template.state == TemplateState.FAILED
            assert "the host's storage pool is full" in operation.error
            assert kitchen.left() == kept
        kitchen.again(number)
        kitchen.ready(number)
        kitchen.retire(number)
        kitchen.ready(number)
    finally:
        lxc("profile", "device", "set", "default", "root", "pool=pool")
    assert kitchen.left() == kept
    lxc("storage", "delete", "tiny")


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


def with_evil(tarball: Path, path: Path, words: dict[str, object]) -> None:
    """The image as somebody else might have made it: LXD is told to fill in a file of the machine, and one of NVIDIA's
    libraries lies in it."""
    with tarfile.open(tarball) as before, tarfile.open(path, "w") as after:
        for entry in before:
            if entry.name != "metadata.yaml":
                after.addfile(entry, before.extractfile(entry) if entry.isreg() else None)
        library = "rootfs/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.550.54.14"
        evil = {"metadata.yaml": json.dumps(words), "templates/evil.tpl": "{{ container.name }}", library: "x"}
        for name, text in evil.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            after.addfile(info, io.BytesIO(text.encode()))
    path.chmod(0o600)
