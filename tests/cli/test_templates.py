"""`berth template …`: built with its log to read, listed, retired; a machine made from one."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import sqlalchemy as sa

from app.drivers.base import HostUnreachable
from app.drivers.fake import FakeLxd
from tests.cli.conftest import Berth, actors
from tests.drivers.test_image_files import GOOD, archive


@pytest.fixture
def sim(lab: Berth, environment: Path) -> FakeLxd:
    return FakeLxd(environment / "sim" / "ws1.json")


def test_built_listed_used_and_retired(lab: Berth, sim: FakeLxd) -> None:
    made = lab(
        "template",
        "build",
        "base",
        "--host",
        "ws1",
        "--package",
        "git",
        "--with",
        "miniconda",
        "--description",
        "For all",
    )
    assert (made.status, made.out) == (0, "base is ready on ws1.\n"), made.err
    assert "== base: from base" in made.err
    assert "== miniconda took " in made.err
    assert "== seal took " in made.err
    assert "80 % publishing" in made.err
    (row,) = lab("template", "list", "--json").json()
    assert (row["name"], row["state"], row["kind"], row["description"]) == ("base", "ready", "recipe", "For all")
    machine = lab("instance", "create", "m1", "--host", "ws1", "--template", "base", "--owner", "liwei", "--json")
    assert machine.status == 0, machine.err
    assert machine.json()["status"] == "running"
    assert lab("template", "retire", "base", "--host", "ws1").out == "base is retired.\n"
    assert lab("template", "list").out == "No templates yet.\n"
    assert not [image for image in sim.images() if image.alias.startswith("berth-")]
    refused = lab("instance", "create", "m2", "--host", "ws1", "--template", "base", "--owner", "liwei")
    assert (refused.status, refused.err) == (1, "ws1 has no template base.\n")


def test_a_step_that_fails_is_an_exit_status_and_is_done_again(lab: Berth, sim: FakeLxd) -> None:
    sim.answer("berth-build-1", 100, "E: Unable to locate package \x1b[31mnope\n")
    failed = lab("template", "build", "desktop", "--host", "ws1", "--name", "xfce", "--package", "nope")
    assert (failed.status, failed.out) == (1, "")
    assert "Step network: E: Unable to locate package nope" in failed.err.splitlines()[-1]
    assert "\x1b" not in failed.err
    assert [row["state"] for row in lab("template", "list", "--json").json()] == ["failed"]
    sim.answer("berth-build-1", 0)
    assert lab("template", "retry", "xfce", "--host", "ws1").out == "xfce is ready on ws1.\n"


def test_an_image_that_could_not_be_removed_is_removed_by_another_try(
    lab: Berth, sim: FakeLxd, engine: sa.Engine
) -> None:
    options = ("base", "--host", "ws1")
    assert lab("template", "take", "base", "--name", *options).status == 0
    sim.fail_next("scrap", HostUnreachable("Connect", "gone", "Wait."))
    refused = lab("template", "retire", *options)
    assert (refused.status, refused.err.splitlines()[-1]) == (1, "Connect: gone. Wait.")
    assert lab("template", "retry", *options).out == "base is retired.\n"
    assert not [image for image in sim.images() if image.alias.startswith("berth-")]
    assert lab("template", "retry", *options).err == "ws1 has no template base.\n"
    assert actors(engine) == {"cli"}


def test_a_build_is_cancelled(lab: Berth, sim: FakeLxd, engine: sa.Engine) -> None:
    sim.answer("berth-build-1", 1)
    assert lab("template", "build", "base", "--host", "ws1", "--name", "slow").status == 1
    sim.answer("berth-build-1", 0)
    with engine.begin() as database:  # asked for again, and not begun
        database.execute(sa.text("UPDATE operations SET state = 'queued', started_at = NULL"))
        database.execute(sa.text("UPDATE templates SET state = 'building'"))
    assert lab("template", "cancel", "slow", "--host", "ws1").out == "slow is cancelled.\n"
    assert [row["state"] for row in lab("template", "list", "--json").json()] == ["failed"]
    assert lab("template", "cancel", "slow", "--host", "ws1").err == "slow is not being built.\n"
    assert lab("template", "retry", "slow", "--host", "ws1").out == "slow is ready on ws1.\n"


def test_from_an_image_and_from_a_machine(lab: Berth, sim: FakeLxd) -> None:
    taken = lab("template", "take", "desktop", "--name", "d", "--host", "ws1", "--desktop", "--json")
    assert (taken.json()["kind"], taken.json()["desktop"]) == ("image", True)
    sim.add_instance("by-hand")
    made = lab("template", "publish", "by-hand", "--name", "mine", "--host", "ws1", "--for", "liwei", "--json")
    assert (made.json()["source"], made.json()["for_everyone"]) == ("by-hand", False)
    sim.add_instance("root", privileged=True)
    refused = lab("template", "publish", "root", "--name", "bad", "--host", "ws1")
    assert refused.status == 1
    assert "privileged" in refused.err.splitlines()[-1]
    assert set(sim.observe().instances) == {"by-hand", "root"}


def test_from_a_file(lab: Berth, sim: FakeLxd, environment: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    file, shelf = tmp_path_factory.mktemp("home") / "noble.tar", environment / "images"
    file.write_bytes(archive(*GOOD))
    options = ("--host", "ws1", "--desktop", "--sha256", hashlib.sha256(file.read_bytes()).hexdigest())
    made = lab("template", "import", str(file), "--name", "noble", *options, "--json")
    assert made.status == 0, made.err
    assert (made.json()["kind"], made.json()["source"], made.json()["desktop"]) == ("file", "noble.tar", True)
    assert "== looking through it" in made.err
    assert list(shelf.iterdir()) == [], "the copy goes when it is ready"
    failed = lab("template", "import", str(file), "--name", "other", "--host", "ws1", "--sha256", "0" * 64)
    assert failed.status == 1
    assert "its SHA-256 is" in failed.err.splitlines()[-1]
    assert [path.name for path in shelf.iterdir()] == ["noble.tar"], "it is tried again with the same"
    again = lab("template", "import", str(file), "--name", "third", "--host", "ws1")
    assert "is there already" in again.err
    there = lab("template", "import", str(shelf / "noble.tar"), "--name", "third", "--host", "ws1")
    assert there.status == 0, there.err
    assert (shelf / "noble.tar").exists(), "one that was put there stays"
    file.rename(file.with_name("other.tar"))
    refused = lab("template", "import", str(file.with_name("other.tar")), "--name", "No", "--host", "ws1")
    assert "A name starts with a letter" in refused.err
    assert [path.name for path in shelf.iterdir()] == ["noble.tar"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("build", "nothing", "--host", "ws1"), "There is no recipe nothing."),
        (("build", "base", "--host", "ws9"), "There is no host ws9."),
        (("build", "base", "--host", "ws1", "--from", "nothing"), "ws1 has no image nothing."),
        (("build", "base", "--host", "ws1", "--mirror", "x y"), "Give the mirror's address"),
        (("build", "base", "--host", "ws1", "--with", "malware"), "A recipe can add miniconda, cuda, jupyter."),
        (("build", "base", "--host", "ws1", "--package", "--x"), "--x is no name of a package."),
        (("publish", "nothing", "--host", "ws1", "--name", "n"), "the host has no such instance"),
        (("retire", "nothing", "--host", "ws1"), "ws1 has no template nothing."),
    ],
)
def test_what_cannot_be_done_is_said(lab: Berth, sim: FakeLxd, arguments: tuple[str, ...], words: str) -> None:
    refused = lab("template", *arguments)
    assert (refused.status, refused.out) == (1, "")
    assert words in refused.err


def test_a_machine_is_made_from_one_thing(lab: Berth) -> None:
    for more in ((), ("--image", "base", "--template", "base")):
        assert lab("instance", "create", "m1", "--host", "ws1", "--owner", "liwei", *more).status == 2
