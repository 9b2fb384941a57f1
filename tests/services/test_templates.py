"""Templates as they are asked for, offered and retired; what is run for them is tests/workers and tests/lab."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from app.drivers.images import Made, Origin
from app.errors import Cancelled, Conflict, InvalidInput, NotFound
from app.extensions import db
from app.models import Host, Operation, OperationKind, OperationState, Template, TemplateKind, TemplateState, User
from app.services import builds, instances, operations, templates
from app.services.recipes import EXTRAS, RECIPES, steps
from app.services.template_rules import USUAL, Wish, usual_start
from tests.factories import make_admin, make_host, make_template, make_user

pytestmark = pytest.mark.usefixtures("app")

SIZE = {"cpus": 2, "memory_gib": 4, "disk_gib": 20}
BASE = Wish("base", TemplateKind.RECIPE, "base")


@pytest.fixture
def host() -> Host:
    return make_host("lab03", images=[{"alias": "debian/12", "description": ""}])


def ask(host: Host, wish: Wish = BASE, actor: User | None = None) -> Template:
    operation = templates.request_build(actor, host, wish)
    assert operation.kind == OperationKind.BUILD
    return templates.get(operation.template_id)


def finish(template: Template, error: str = "") -> None:
    operations.finish(operations.last_of_template(template.id).id, "agent:lab03", error)


def from_template(user: User, host: Host, template: Template, name: str = "gamma") -> Operation:
    return instances.request_create(user, user, name=name, host=host, template=template, **SIZE)


def test_a_recipe_is_asked_for_and_described_to_the_agent(host: Host) -> None:
    wish = Wish("ml", TemplateKind.RECIPE, "desktop", mirror="http://mirror/debian/", packages=("git", "g++"))
    template = ask(host, wish)
    assert (template.state, template.desktop, template.for_everyone) == (TemplateState.BUILDING, True, True)
    job = builds.job(template.id)
    assert job.origin == Origin(alias="debian/12")
    assert [step.code for step in job.steps] == ["network", "sources", "base", "desktop", "packages", "seal"]
    assert job.steps[0].environment["MIRROR"] == "http://mirror/debian"
    assert job.steps[0].environment["PACKAGES"] == "git g++"


@pytest.mark.parametrize(
    ("wish", "origin"),
    [
        (Wish("a", TemplateKind.IMAGE, "debian/12"), Origin(alias="debian/12")),
        (Wish("a", TemplateKind.IMAGE, "ubuntu:24.04"), Origin("24.04", "https://cloud-images.ubuntu.com/releases")),
        (Wish("a", TemplateKind.INSTANCE, "gamma"), Origin(instance="gamma")),
        (Wish("a", TemplateKind.FILE, "noble.tar.xz"), Origin(file="noble.tar.xz")),
        (Wish("a", TemplateKind.RECIPE, "base", start="images:debian/12"),
         Origin("debian/12", "https://images.lxd.canonical.com")),
    ],
)  # fmt: skip
def test_where_it_comes_from(host: Host, wish: Wish, origin: Origin) -> None:
    job = builds.job(ask(host, wish).id)
    assert job.origin == origin
    assert job.steps[-1].code == "seal", "whatever it was, it is sealed"
    assert (len(job.steps) > 1) == (wish.kind == TemplateKind.RECIPE)


def test_a_recipe_starts_from_what_the_host_has(host: Host) -> None:
    def start(*aliases: str) -> str:
        host.images = [{"alias": alias, "description": ""} for alias in aliases]
        return usual_start(host)

    assert start("alpine", "ubuntu/24.04") == "ubuntu/24.04"
    assert start("mine") == "mine"
    assert start("mine", "yours") == start() == USUAL


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("name", {"name": "No Name"}),
        ("name", {"name": "a" * 31}),
        ("recipe", {"source": "../../etc"}),
        ("start", {"start": "nothing"}),
        ("start", {"start": "https://evil.example:debian"}),
        ("start", {"start": "ubuntu:24.04 x"}),
        ("image", {"kind": TemplateKind.IMAGE, "source": "ubuntu:"}),
        ("instance", {"kind": TemplateKind.INSTANCE, "source": "../x"}),
        ("file", {"kind": TemplateKind.FILE, "source": "../x.tar"}),
        ("file", {"kind": TemplateKind.FILE, "source": ".berth-1.tar"}),
        ("checksum", {"kind": TemplateKind.FILE, "source": "x.tar", "checksum": "abc"}),
        ("extras", {"extras": ("miniconda", "malware")}),
        ("mirror", {"mirror": "file:///etc"}),
        ("mirror", {"mirror": "http://a b"}),
        ("mirror", {"mirror": "http://mirror/debian\nend"}),
        ("packages", {"packages": ("-oAPT::Update::Pre-Invoke::=id",)}),
        ("packages", {"packages": ("a;id",)}),
        ("packages", {"packages": ("./x.deb",)}),
        ("packages", {"packages": ("git",) * 61}),
        ("description", {"description": "x" * 301}),
        ("description", {"description": "\x1b[2J"}),
        ("users", {"users": ("nobody-here",)}),
    ],
)
def test_what_cannot_be_meant_is_refused_by_field(host: Host, field: str, change: dict[str, object]) -> None:
    values = {"name": "base", "kind": TemplateKind.RECIPE, "source": "base"} | change
    with pytest.raises(InvalidInput) as refused:
        templates.request_build(None, host, Wish(**values))  # type: ignore[arg-type]
    assert refused.value.field == field
    assert db.session.scalar(db.select(db.func.count(Template.id))) == 0


def test_a_name_is_taken_on_its_host_until_it_is_retired(host: Host) -> None:
    first = ask(host)
    with pytest.raises(InvalidInput, match="has a template base already"):
        ask(host)
    ask(make_host(images=host.images))
    with pytest.raises(Conflict, match="still under way"):
        templates.retire(None, first)
    finish(first)
    assert templates.retire(None, first).kind == OperationKind.DISCARD
    with pytest.raises(Conflict):
        templates.retire(None, first)
    assert ask(host).id != first.id


def test_the_end_of_a_build_makes_it_ready_or_failed_and_a_failed_one_is_built_again(host: Host) -> None:
    template = ask(host)
    with pytest.raises(Conflict):
        templates.retry(None, template)
    finish(template, "no space")
    assert template.state == TemplateState.FAILED
    templates.retry(None, template)
    assert template.state == TemplateState.BUILDING
    builds.built(template.id, Made(5))
    finish(template)
    assert (template.state, template.image) == (TemplateState.READY, f"berth-template-{template.id}")
    with pytest.raises(Conflict):
        templates.retry(None, template)


def test_a_build_is_cancelled_at_once_or_by_its_agent(host: Host) -> None:
    admin, template = make_admin("root-of-lab"), ask(host)
    assert builds.cancel(admin, template)  # nobody has begun
    operation = operations.last_of_template(template.id)
    assert (operation.state, operation.error) == (OperationState.FAILED, "Cancelled by root-of-lab.")
    assert template.state == TemplateState.FAILED
    with pytest.raises(Conflict, match="is not being built"):
        builds.cancel(admin, template)
    templates.retry(None, template)
    operation = operations.claim(host.id)
    builds.heed(operation.id)  # the new one is not meant
    operations.requeue_interrupted(host.id)  # its agent died: something is left on the host
    assert not builds.cancel(None, template)
    assert operation.state == OperationState.QUEUED
    with pytest.raises(Cancelled, match=r"^Cancelled by system\.$"):
        builds.heed(operation.id)


@pytest.mark.parametrize("step", ["publishing", "trying"])
def test_an_image_that_is_being_made_is_not_cancelled(host: Host, step: str) -> None:
    template = ask(host)
    operations.progress(operations.claim(host.id).id, step, 80)
    with pytest.raises(Conflict, match=r"is being made already\. Retire it afterwards"):
        builds.cancel(None, template)
    operations.requeue_interrupted(host.id)  # its agent died: it begins anew
    assert not builds.cancel(None, template)


def test_who_is_offered_what(host: Host) -> None:
    user, other, admin = make_user(), make_user(), make_admin()
    everybodys = make_template(host, "a")
    theirs = make_template(host, "b", for_everyone=False, users=[user])
    make_template(host, "c", state=TemplateState.BUILDING)
    make_template(host, "d", state=TemplateState.FAILED)
    gone = make_template(host, "e")
    templates.retire(None, gone)
    make_template(make_host(enabled=False), "f")
    assert templates.offered(user) == [everybodys, theirs]
    assert templates.offered(other) == [everybodys]
    assert templates.offered(admin) == templates.offered(None) == [everybodys, theirs]
    templates.change(None, templates.get(everybodys.id), description="", for_everyone=False, users=["nobody"] * 0)
    assert templates.offered(other) == []
    with pytest.raises(NotFound):
        templates.named(host, "e")


def test_a_machine_is_made_from_a_template_that_one_may_use(host: Host) -> None:
    user, other = make_user(), make_user()
    template = make_template(host, for_everyone=False, users=[user])
    from_template(user, host, template)
    machine = instances.get(user, "gamma")
    assert (machine.template_id, machine.image) == (template.id, f"berth-template-{template.id}")
    for person, place in ((other, host), (user, make_host())):
        with pytest.raises(InvalidInput, match="does not offer the template") as refused:
            from_template(person, place, template, "delta")
        assert refused.value.field == "image"
    templates.retire(None, template)
    with pytest.raises(InvalidInput, match="does not offer"):
        from_template(user, host, template, "delta")


def test_raw_images_are_for_people_only_where_there_is_no_template(host: Host) -> None:
    user, admin = make_user(), make_admin()

    def create(actor: User, name: str) -> None:
        instances.request_create(actor, actor, name=name, host=host, image="debian/12", **SIZE)

    create(user, "one")
    make_template(host)
    with pytest.raises(InvalidInput, match="made from templates"):
        create(user, "two")
    create(admin, "three")


def test_a_machine_may_not_be_called_like_a_builder(host: Host) -> None:
    user = make_user()
    with pytest.raises(InvalidInput, match="is taken"):
        instances.request_create(user, user, name="berth-build-1", host=host, image="debian/12", **SIZE)


def test_an_image_is_wanted_while_a_machine_is_being_made_from_it(host: Host) -> None:
    user, template = make_user(), make_template(host)
    operation = from_template(user, host, template)
    assert templates.wanted(template.id)
    operations.finish(operation.id, "agent:lab03")
    assert operation.state == OperationState.DONE
    assert not templates.wanted(template.id)


def test_every_recipe_has_its_scripts_and_they_are_shell() -> None:
    everything = {"packages": ["x"], "extras": dict.fromkeys(EXTRAS, "https://mirror")}
    for name in (*RECIPES, ""):
        for step in steps(name, everything):
            done = subprocess.run(["/bin/sh", "-n"], input=step.script, text=True, capture_output=True, check=False)
            assert (done.returncode, done.stderr) == (0, ""), step.code
            assert step.script.startswith("set -eu\n")
    folder = Path(__file__).parents[2] / "app/services/recipes"
    known = {step.code for name in RECIPES for step in steps(name, everything)}
    assert {path.stem for path in folder.glob("*.sh")} == known
