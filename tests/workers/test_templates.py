"""Building templates on a simulated host: what is run, what is written down, and that nothing is ever left over."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from flask import Flask

from app.drivers.base import GiveUp, HostUnreachable, ServerInfo
from app.drivers.fake import FakeLxd
from app.drivers.image_files import ImageFiles
from app.errors import Conflict, NotFound
from app.extensions import db, transaction
from app.models import Host, OperationKind, OperationState, Template, TemplateKind, TemplateState
from app.services import builds, instances, operations, templates
from app.services.template_rules import Wish
from tests.drivers.test_image_files import GOOD, archive, link
from tests.factories import make_admin, make_host, make_user
from workers.templates import Log
from workers.works import Work, _attempt

pytestmark = pytest.mark.usefixtures("app")

IMAGES = [{"alias": "base", "description": ""}]


@pytest.fixture
def lxd(tmp_path: Path) -> FakeLxd:
    return FakeLxd(tmp_path / "lab.json", pace=0)


@pytest.fixture
def host() -> Host:
    return make_host("lab", images=IMAGES)


def ask(host: Host, **values: object) -> Template:
    wish = Wish(**({"name": "base", "kind": TemplateKind.RECIPE, "source": "base"} | values))  # type: ignore[arg-type]
    with transaction():
        return templates.get(templates.request_build(None, host, wish).template_id)


def do(host: Host, lxd: FakeLxd) -> str:
    """What an agent does with the host's oldest operation; its error."""
    with transaction():
        operation = operations.claim(host.id)
    error = _attempt(Work(operation, lxd))
    with transaction():
        operations.finish(operation.id, "agent:lab", error)
    db.session.expire_all()
    return error


def left(lxd: FakeLxd) -> tuple[set[str], set[str]]:
    """Instances, and images of templates."""
    made = {image.alias for image in lxd.images() if image.alias.startswith("berth-")}
    return set(lxd.observe().instances), made


def test_a_template_is_built_and_a_machine_made_from_it(host: Host, lxd: FakeLxd) -> None:
    template = ask(host, packages=("git",))
    assert do(host, lxd) == ""
    assert (template.state, template.image) == (TemplateState.READY, f"berth-template-{template.id}")
    assert template.size_bytes > 0
    assert left(lxd) == (set(), {template.image})
    log = operations.last_of_template(template.id).log
    heads = [line for line in log.splitlines() if line.startswith("==") and " took " not in line]
    assert heads[1:] == ["== network", "== sources", "== base", "== packages", "== seal", "== the image"]
    assert [command[0] for command in lxd.ran(f"berth-build-{template.id}")] == ["/bin/sh"] * 5
    with transaction():
        user = make_user()
        size = {"cpus": 1, "memory_gib": 1, "disk_gib": 5}
        instances.request_create(user, user, name="gamma", host=host, template=template, **size)
    assert do(host, lxd) == ""
    assert lxd.observe().instances["gamma"].status == "running"


def test_a_step_that_fails_says_why_and_leaves_nothing_and_is_done_again(host: Host, lxd: FakeLxd) -> None:
    template = ask(host)
    lxd.answer(f"berth-build-{template.id}", 100, "Reading\x1b[1m lists\x07\nE: Unable to locate package nope\n")
    error = do(host, lxd)
    assert "Step network: E: Unable to locate package nope" in error
    assert template.state == TemplateState.FAILED
    assert left(lxd) == (set(), set())
    operation = operations.last_of_template(template.id)
    assert (operation.state, operation.error) == (OperationState.FAILED, error)
    assert "Reading lists\nE: Unable to locate package nope\n" in operation.log
    lxd.answer(f"berth-build-{template.id}", 0)
    with transaction():
        templates.retry(None, template)
    assert do(host, lxd) == ""
    assert left(lxd) == (set(), {template.image})


@pytest.mark.parametrize("method", ["prepare", "run", "publish"])
def test_trouble_of_the_host_anywhere_leaves_nothing(host: Host, lxd: FakeLxd, method: str) -> None:
    template = ask(host)
    lxd.fail_next(method, GiveUp("Make it", "no space left on device", "Make room in the storage pool."))
    assert "no space left on device. Make room" in do(host, lxd)
    assert template.state == TemplateState.FAILED
    assert left(lxd) == (set(), set())


def test_a_host_that_goes_away_is_cleared_up_by_the_next_try(host: Host, lxd: FakeLxd) -> None:
    template = ask(host)
    lxd.fail_next("run", HostUnreachable("Connect", "gone", "Wait."))
    lxd.fail_next("scrap", HostUnreachable("Connect", "gone", "Wait."), after=1)
    assert "gone" in do(host, lxd)
    assert left(lxd)[0] == {f"berth-build-{template.id}"}
    with transaction():
        templates.retry(None, template)
    assert do(host, lxd) == ""
    assert left(lxd) == (set(), {template.image})


class SlowLxd(FakeLxd):
    """A host whose steps say nothing for long; somebody cancels the build meanwhile."""

    template: Template
    slow_in = ""

    def prepare(self, template, origin, progress):
        name = super().prepare(template, origin, progress)
        self._cancel("prepare")
        progress("copying", 100)
        return name

    def run(self, instance, command, heard=None):
        self._cancel("run")
        heard("")
        return super().run(instance, command, heard)

    def publish(self, *arguments):
        self._cancel("publish")
        return super().publish(*arguments)

    def _cancel(self, where):
        if where == self.slow_in:
            with transaction():
                builds.cancel(make_admin("root-of-lab"), self.template)


@pytest.mark.parametrize("method", ["prepare", "run"])
def test_a_cancelled_build_leaves_nothing(
    host: Host, tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.templates._NOTE_EVERY", 0.0)
    slow = SlowLxd(tmp_path / "lab.json", pace=0)
    slow.template, slow.slow_in = ask(host), method
    assert do(host, slow) == "Cancelled by root-of-lab."
    assert slow.template.state == TemplateState.FAILED
    assert left(slow) == (set(), set())
    slow.slow_in = ""
    with transaction():
        templates.retry(None, slow.template)
    assert do(host, slow) == ""


def test_who_comes_when_the_image_is_being_made_is_refused(host: Host, tmp_path: Path) -> None:
    slow = SlowLxd(tmp_path / "lab.json", pace=0)
    slow.template, slow.slow_in = ask(host), "publish"
    assert "is being made already. Retire it afterwards." in do(host, slow)


class KilledError(BaseException):
    """In place of kill -9: nobody catches it."""


class DyingLxd(FakeLxd):
    """The host of an agent that is killed in a call: after it, nothing is cleared up any more."""

    dies_in, dead = "", False

    def run(self, *arguments, **more):
        return self._lived("run", super().run, *arguments, **more)

    def prepare(self, *arguments):
        return self._lived("prepare", super().prepare, *arguments)

    def publish(self, *arguments):
        return self._lived("publish", super().publish, *arguments)

    def scrap(self, template: int) -> None:
        if self.dead:
            raise KilledError
        super().scrap(template)

    def _lived(self, name, call, *arguments, **more):
        done = call(*arguments, **more)
        self.dead = name == self.dies_in
        if self.dead:
            raise KilledError
        return done


@pytest.mark.parametrize("method", ["prepare", "run", "publish"])
def test_an_agent_that_is_killed_leaves_no_orphan(host: Host, tmp_path: Path, method: str) -> None:
    template = ask(host)
    dying = DyingLxd(tmp_path / "lab.json", pace=0)
    dying.dies_in = method
    with transaction():
        operation = operations.claim(host.id)
    with pytest.raises(KilledError):
        _attempt(Work(operation, dying))
    lxd = FakeLxd(tmp_path / "lab.json", pace=0)
    instances_left, images_left = left(lxd)
    assert instances_left | images_left, "something was left for the next one"
    with transaction():
        assert operations.requeue_interrupted(host.id) == 1
    assert do(host, lxd) == ""
    assert left(lxd) == (set(), {template.image})


def test_a_retired_templates_image_goes(host: Host, lxd: FakeLxd) -> None:
    template = ask(host)
    do(host, lxd)
    with transaction():
        templates.retire(None, template)
    assert do(host, lxd) == ""
    assert left(lxd) == (set(), set())
    assert (template.image, operations.last_of_template(template.id).kind) == ("", OperationKind.DISCARD)


def test_an_image_that_could_not_be_removed_is_removed_by_another_try(host: Host, lxd: FakeLxd) -> None:
    template = ask(host)
    do(host, lxd)
    with transaction():
        templates.retire(None, template)
    lxd.fail_next("scrap", HostUnreachable("Connect", "gone", "Wait."))
    assert "gone" in do(host, lxd)
    assert left(lxd) == (set(), {template.image})
    with transaction():
        assert templates.to_retry(host, "base") is template
        assert templates.retry(None, template).kind == OperationKind.DISCARD
    assert do(host, lxd) == ""
    assert left(lxd) == (set(), set())
    with pytest.raises(Conflict, match="base is retired already"):
        templates.retry(None, template)
    with pytest.raises(NotFound):
        templates.to_retry(host, "base")


def test_it_stays_queued_while_machines_are_being_made_from_it(host: Host, lxd: FakeLxd) -> None:
    """It takes no hand from those that it waits for."""
    template = ask(host)
    do(host, lxd)
    user, size = make_user(), {"cpus": 1, "memory_gib": 1, "disk_gib": 5}
    with transaction():
        instances.request_create(user, user, name="gamma", host=host, template=template, **size)
        machine = instances.get(user, "gamma")
        templates.retire(None, template)
    for kind, then in ((OperationKind.CREATE, OperationKind.REBUILD), (OperationKind.REBUILD, OperationKind.BACKUP)):
        with transaction():
            making = operations.claim(host.id)
            assert (making.kind, operations.claim(host.id)) == (kind, None)
            assert templates.wanted(template.id)
            operations.finish(making.id, "agent:lab")
            operations.enqueue(user, machine, then)
    assert not templates.wanted(template.id)
    assert do(host, lxd) == ""
    assert left(lxd) == (set(), set())


def test_an_instance_of_somebody_else_by_that_name_is_left_alone(host: Host, lxd: FakeLxd) -> None:
    template = ask(host)
    lxd.add_instance(f"berth-build-{template.id}", owner="alice")
    assert "Berth did not make it" in do(host, lxd)
    assert left(lxd)[0] == {f"berth-build-{template.id}"}


def test_a_vanished_image_is_said(host: Host, lxd: FakeLxd) -> None:
    host.images = [{"alias": "gone", "description": ""}]
    ask(host, start="gone")
    assert "no image 'gone' on this host" in do(host, lxd)


def shelve(app: Flask, content: bytes = b"") -> Path:
    """A file of an image where the agent looks for one."""
    shelf = ImageFiles(app.extensions["berth"].images_dir)
    shelf.names()  # makes the directory
    (shelf.directory / "x.tar").write_bytes(content or archive(*GOOD))
    return shelf.directory


def test_a_file_is_looked_through_and_known_by_its_sum(app: Flask, host: Host, lxd: FakeLxd) -> None:
    folder = shelve(app)
    template = ask(host, kind=TemplateKind.FILE, source="x.tar")
    assert do(host, lxd) == ""
    digest = hashlib.sha256((folder / "x.tar").read_bytes()).hexdigest()
    assert template.options["sha256"] == digest
    assert f"4 files, SHA-256 {digest}" in operations.last_of_template(template.id).log
    assert [path.name for path in folder.iterdir()] == ["x.tar"]
    other = ask(host, name="other", kind=TemplateKind.FILE, source="x.tar", checksum="0" * 64)
    assert "its SHA-256 is" in do(host, lxd)
    assert other.state == TemplateState.FAILED
    assert left(lxd) == (set(), {template.image})


def test_a_file_that_somebody_prepared_for_us_is_refused(app: Flask, host: Host, lxd: FakeLxd) -> None:
    shelve(app, archive(GOOD[0], link("rootfs", "/")))
    template = ask(host, kind=TemplateKind.FILE, source="x.tar")
    assert "Take the image x.tar: rootfs is no directory. Nothing of it was used." in do(host, lxd)
    assert left(lxd) == (set(), set())
    shelve(app)
    with transaction():
        templates.retry(None, template)
    assert do(host, lxd) == ""


def test_an_old_lxd_is_given_no_files(app: Flask, host: Host, lxd: FakeLxd, monkeypatch: pytest.MonkeyPatch) -> None:
    shelve(app)
    monkeypatch.setattr(lxd, "server", lambda: ServerInfo("lab", "5.0.2"))
    template = ask(host, kind=TemplateKind.FILE, source="x.tar")
    error = do(host, lxd)
    assert "LXD 5.0.2 can be taken over by an image as it reads it" in error
    assert "BERTH_IMPORT_ANYWAY=1" in error
    monkeypatch.setitem(app.extensions, "berth", replace(app.extensions["berth"], import_anyway=True))
    with transaction():
        templates.retry(None, template)
    assert do(host, lxd) == ""


def test_the_log_is_written_in_pieces(app: Flask) -> None:
    written: list[str] = []

    class Pen:
        def note(self, text: str) -> None:
            written.append(text)

        def heed(self) -> None:
            pass

    with Log(Pen()) as log:  # type: ignore[arg-type]
        for number in range(2000):
            log(f"line {number} \x1b[31mred\x1b[0m\r\n")
    assert "".join(written) == "".join(f"line {number} red\n" for number in range(2000))
    assert len(written) < 10
