"""Templates through the pages: made in three ways, watched, tried again, retired, and offered to those who may."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from app import clock
from app.drivers.images import Made
from app.extensions import db
from app.models import Operation, OperationKind, Template, TemplateKind, TemplateState
from app.services import builds, operations, templates
from tests.factories import make_admin, make_host, make_instance, make_template, make_user
from tests.page import Client, Page

IMAGES = [{"alias": "debian/12", "description": "Debian"}]
MACHINE = {"name": "gamma", "cpus": "4", "memory_gib": "8", "disk_gib": "40"}


@pytest.fixture
def admin(client: Client) -> Client:
    client.login_as(make_admin("root-of-lab"))
    return client


def host(name: str = "lab03", **values: object):
    return make_host(name, images=IMAGES, seen_at=clock.now(), **values)


def only() -> Template:
    return templates.get(db.session.scalars(db.select(Template.id)).one())


def operation() -> Operation:
    found = operations.last_of_template(only().id)
    assert found is not None
    return found


def errors(page: Page) -> str:
    return " ".join(page.texts("//*[@role='alert']")[1:])


def test_by_a_recipe_with_its_settings(admin: Client, woken: list[str]) -> None:
    host()
    page = admin.get(admin.get("/templates").link("New template"))
    assert page.all("//main//nav//a[@aria-current='page']/text()") == ["By a recipe"]
    form = page.form("Build template")
    values = {"Name": "ml", "Image to start from": "debian/12", "Package mirror": "http://mirror/debian"}
    form = form.fill(**values, **{"More packages": "git, g++\n  tmux", "Description": "For everybody"})
    answer = admin.submit(form)
    assert (answer.status, woken) == (303, ["lab03"])
    made = only()
    assert answer.location == f"/templates/{made.id}"
    assert (made.kind, made.source, made.desktop) == (TemplateKind.RECIPE, "desktop", True)
    assert made.options == {"start": "debian/12", "mirror": "http://mirror/debian", "packages": ["git", "g++", "tmux"]}
    assert operation().kind == OperationKind.BUILD
    shown = admin.get(answer.location)
    assert "starting from debian/12" in shown.text
    assert "git g++ tmux" in shown.text


def test_a_build_that_ends_while_its_page_is_made(admin: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its agent commits the end after the page has read the template, and before it reads the work."""
    made = make_template(host(), state=TemplateState.BUILDING)
    work = operations.enqueue(None, made, OperationKind.BUILD)
    written = [(Operation.__table__, work.id, {"state": "done"}), (Template.__table__, made.id, {"state": "ready"})]
    address = admin.get("/templates").link(made.name)
    read = templates.get

    def ended_after(number: int) -> Template:
        found = read(number)
        for table, row, values in written:  # behind the back of what the page has loaded
            db.session.execute(table.update().where(table.c.id == row).values(values))
        db.session.commit()
        return found

    monkeypatch.setattr(templates, "get", ended_after)
    page = admin.get(address, htmx=True)
    assert page.texts("//*[@id='template']/p")[0] == "Ready"
    assert not page.all("//*[@hx-get]"), "the polling ends"
    assert f"{made.name} is ready." in page.texts("//*[@id='flash']")[0]


def test_from_an_image_and_from_a_machine(admin: Client, woken: list[str]) -> None:
    lab = host()
    make_instance(make_user("liwei", full_name="Li Wei"), lab, "prepared")
    form = admin.get("/templates/new/image").form("Build template")
    assert admin.submit(form.fill(Name="noble", Image="ubuntu:24.04")).status == 303
    page = admin.get("/templates/new/machine")
    assert page.texts("//option") == ["prepared on lab03, of Li Wei"]
    assert "All its files come along" in page.text
    form = page.form("Build template").fill(Name="mine", **{"It has a remote desktop": True})
    assert admin.submit(form).status == 303
    found = {one.name: one for one in templates.every()}
    assert (found["noble"].kind, found["noble"].source) == (TemplateKind.IMAGE, "ubuntu:24.04")
    assert (found["mine"].kind, found["mine"].source, found["mine"].desktop) == (
        TemplateKind.INSTANCE,
        "prepared",
        True,
    )
    assert woken == ["lab03", "lab03"]


@pytest.mark.parametrize(
    ("way", "field", "value", "words"),
    [
        ("recipe", "name", "", "Fill this in."),
        ("recipe", "name", "Big One", "starts with a letter"),
        ("recipe", "name", "base", "has a template base already"),
        ("recipe", "start", "nothing", "has no image nothing"),
        ("recipe", "mirror", "ftp://x", "Give the mirror's address"),
        ("recipe", "packages", "ok $(id)", "$(id) is no name of a package"),
        ("recipe", "recipe", "<b>", None),
        ("recipe", "host", "lab09", None),
        ("recipe", "users", "nobody-here", "nobody called nobody-here"),
        ("image", "image", "https://evil/x", "has no image"),
        ("machine", "instance", "nothing", None),
        ("file", "file", "lab03/nothing.tar", "from the list"),
        ("file", "file", "lab09/x.tar", "from the list"),
        ("file", "checksum", "xyz", "A SHA-256 has 64 digits"),
        ("recipe", "extras", "malware", None),
    ],
)
def test_bad_fields_are_named(
    admin: Client, woken: list[str], way: str, field: str, value: str, words: str | None
) -> None:
    make_template(host(image_files={"directory": "/var/lib/berth/images", "names": ["x.tar"]}))
    sent = {"file": "lab03/x.tar"}
    sent |= {"name": "ml", "host": "lab03", "recipe": "base", "audience": "everyone", "image": "debian/12"}
    if field == "users":
        sent["audience"] = "chosen"
    page = admin.post(f"/templates/new/{way}", sent | {field: value})
    assert page.status == 422
    if words:
        assert words in errors(page)
        assert words in page.texts(f"//*[@id='{field}-error']")[0]
    assert not page.all("//main//b")
    assert (len(templates.every()), woken) == (1, [])


def test_what_failed_is_changed_and_built_again(admin: Client, woken: list[str]) -> None:
    lab, liwei = host(), make_user("liwei")
    told = {"start": "debian/12", "mirror": "http://mirror/debian", "packages": ["git", "pytorch"], "extras": {}}
    broken = make_template(
        lab, "ml", state=TemplateState.FAILED, options=told, description="Old", for_everyone=False, users=[liwei],
        picture=b"a picture",
    )  # fmt: skip
    make_template(lab, "desktop")
    page = admin.get(admin.get(f"/templates/{broken.id}").link("Change and build again"))
    assert page.texts("//h1") == ["Build ml again"]
    assert page.texts("//textarea") == ["git pytorch"]
    assert page.all("//input[@name='users']/@value") == ["liwei"]
    assert not page.all("//*[@name='host']"), "it stays on its host"
    form = page.form("Build template")
    taken = admin.submit(form.fill(Name="desktop", **{"More packages": "git"}))
    assert (taken.status, taken.texts("//h1"), woken) == (422, ["Build ml again"], [])
    assert "has a template desktop already" in errors(taken)
    answer = admin.submit(taken.form("Build template").fill(Name="ml2"))
    assert (answer.status, answer.location, woken) == (303, f"/templates/{broken.id}", ["lab03"])
    db.session.expire_all()
    made = templates.get(broken.id)
    assert (made.name, made.state, made.source, made.picture) == ("ml2", TemplateState.BUILDING, "base", b"a picture")
    assert made.options == {"start": "debian/12", "mirror": "http://mirror/debian", "packages": ["git"]}
    assert [user.username for user in made.users] == ["liwei"]
    work = operations.last_of_template(made.id)
    assert work is not None
    assert work.kind == OperationKind.BUILD
    assert admin.get(f"/templates/{broken.id}/amend").location == f"/templates/{broken.id}", "it is being built"
    late = admin.submit(form)
    assert (late.status, "Only a template that could not be built" in late.text) == (409, True)


@pytest.mark.parametrize(
    ("kind", "source", "options", "shown"),
    [
        (TemplateKind.IMAGE, "debian/12", {}, "//input[@name='image']/@value"),
        (TemplateKind.FILE, "x.tar", {"checksum": "a" * 64}, "//option[@selected]/text()"),
        (TemplateKind.INSTANCE, "gamma", {}, "//option[@selected]/@value"),
    ],
)
def test_every_way_is_filled_in_as_it_was(
    admin: Client, woken: list[str], kind: TemplateKind, source: str, options: dict[str, str], shown: str
) -> None:
    lab, owner = host(image_files={"directory": "/x", "names": ["a.tar", "x.tar"]}), make_user("liwei")
    for name in ("alpha", "gamma"):
        make_instance(owner, lab, name)
    make_instance(owner, host("lab04", image_files={"directory": "/x", "names": ["y.tar"]}), "elsewhere")
    broken = make_template(lab, kind=kind, source=source, options=options, state=TemplateState.FAILED, desktop=True)
    page = admin.get(f"/templates/{broken.id}/amend")
    assert page.all(shown) == [source]
    assert "elsewhere" not in page.text
    assert "y.tar" not in page.text
    assert admin.submit(page.form("Build template")).status == 303
    after = only()
    assert (after.kind, after.source, after.options, after.desktop) == (kind, source, options, True)


@pytest.mark.parametrize("kind", [TemplateKind.FILE, TemplateKind.INSTANCE])
def test_for_what_it_was_made_from_and_is_gone_nothing_else_stands_in(
    admin: Client, woken: list[str], kind: TemplateKind
) -> None:
    lab = host(image_files={"directory": "/x", "names": ["a.tar"]})
    make_instance(make_user("liwei"), lab, "alpha")
    broken = make_template(lab, kind=kind, source="gone", state=TemplateState.FAILED)
    form = admin.get(f"/templates/{broken.id}/amend").form("Build template")
    refused = admin.submit(form)
    assert (refused.status, only().source) == (422, "gone")
    assert "Fill this in." in refused.text


def test_from_a_file_that_lies_on_a_host(admin: Client, woken: list[str]) -> None:
    page = admin.get("/templates/new/file")
    assert "No host has a file there yet." in page.text
    host(image_files={"directory": "/var/lib/berth/images", "names": ["noble.tar.xz", "x.tar"]})
    page = admin.get("/templates/new/file")
    assert "lab03: /var/lib/berth/images" in page.text
    assert page.texts("//option") == ["noble.tar.xz", "x.tar"]
    form = page.form("Build template").fill(Name="noble", **{"SHA-256, if you know it": "A" * 64})
    assert admin.submit(form).status == 303
    made = only()
    assert (made.kind, made.source, made.options) == (TemplateKind.FILE, "noble.tar.xz", {"checksum": "a" * 64})
    builds.looked_through(made.id, "b" * 64)
    db.session.commit()
    assert "b" * 64 in admin.get(f"/templates/{made.id}").text
    assert woken == ["lab03"]


def test_a_recipe_with_more(admin: Client, woken: list[str]) -> None:
    host()
    page = admin.get("/templates/new/recipe")
    assert "from https://repo.anaconda.com/miniconda" in page.text
    values = {
        "name": "ml",
        "host": "lab03",
        "recipe": "base",
        "audience": "everyone",
        "extras": ["jupyter", "miniconda"],
    }
    answer = admin.post("/templates/new/recipe", values)
    assert answer.status == 303
    assert only().options["extras"] == {
        "miniconda": "https://repo.anaconda.com/miniconda",
        "jupyter": "https://pypi.org/simple",
    }
    codes = [step.code for step in builds.job(only().id).steps]
    assert codes == ["network", "sources", "base", "miniconda", "jupyter", "seal"]
    assert "miniconda (https://repo.anaconda.com/miniconda)" in admin.get(answer.location).text


def drawing(kind: str = "PNG", size: tuple[int, int] = (400, 200)) -> bytes:
    made = io.BytesIO()
    Image.new("RGB", size, "red").save(made, kind)
    return made.getvalue()


def test_a_picture_is_drawn_anew_and_shown_to_those_who_choose(admin: Client, client: Client) -> None:
    template = make_template(host(), "base")
    here = f"/templates/{template.id}"

    def send(content: bytes, **more: object) -> Page:
        return admin.post(here, {"audience": "everyone", "picture": (io.BytesIO(content), "x.png"), **more})

    for content, words in (
        (b"<svg onload='alert(1)'/>", "no PNG, JPEG or WebP"),
        (drawing("GIF"), "no PNG, JPEG or WebP"),
        (drawing()[:60], "no PNG, JPEG or WebP"),
        (drawing(size=(5000, 4000)), "too many pixels"),
        (drawing() + bytes(600_000), "512 KiB at most"),
    ):
        page = send(content)
        assert (page.status, words in errors(page)) == (422, True), words
    for kind in ("PNG", "JPEG", "WEBP"):
        assert send(drawing(kind) + b"<script>hidden").status == 303
        shown = admin.raw.get(f"/machines/new/picture/{template.id}")
        assert (shown.status_code, shown.mimetype) == (200, "image/png")
        assert b"hidden" not in shown.data
        assert Image.open(io.BytesIO(shown.data)).size == (192, 96)
    page = admin.get("/machines/new")
    assert page.all("//label//img/@src") == [f"/machines/new/picture/{template.id}"]
    assert admin.submit(admin.get(here).form("Save")).status == 303, "it stays when nothing is sent"
    assert admin.get(here).all("//img/@src")
    assert admin.post(here, {"audience": "chosen", "users": ""}).status == 303
    client.login_as(make_user("liwei"))
    assert client.get(f"/machines/new/picture/{template.id}").status == 404
    admin.login_as(make_admin())
    assert admin.post(here, {"audience": "everyone", "no_picture": "y"}).status == 303
    assert not admin.get(here).all("//main//img")


def test_libraries_that_do_not_fit_the_driver_any_more(admin: Client) -> None:
    template = make_template(host(driver_version="580.95.05"), "base", driver_version="550.1", ready_at=clock.now())
    page = admin.get(f"/templates/{template.id}")
    assert "Its NVIDIA libraries do not fit the host any more." in page.text
    assert "550.1, in the image" in page.text
    for address in ("/templates", "/machines/new"):
        assert "NVIDIA libraries do not fit" in admin.get(address).text
    template.driver_version = "580.95.05"
    db.session.commit()
    for address in ("/templates", "/machines/new", f"/templates/{template.id}"):
        assert "not fit" not in admin.get(address).text


def test_it_is_watched_until_it_is_final(admin: Client, woken: list[str]) -> None:
    host()
    answer = admin.post(
        "/templates/new/image", {"name": "a", "host": "lab03", "image": "debian/12", "audience": "everyone"}
    )
    operations.progress(operation().id, "desktop", 40)
    operations.note(operation().id, "".join(f"line {number}\n" for number in range(100)) + "<b>bold</b>\n")
    page = admin.get(answer.location)
    assert "Being built" in page.text
    assert "Installing the desktop, 40 %" in page.text
    assert page.all("//*[@hx-get]/@hx-get") == [answer.location]
    assert page.all("//noscript//a/@href") == [answer.location]
    log = page.texts("//pre")[0]
    assert "line 99" in log
    assert "<b>bold</b>" in log
    assert "line 50 " not in log, "the end of it, while it grows"
    assert "Try again" not in page.buttons()
    builds.built(only().id, Made(700 << 20))
    operations.finish(operation().id, "agent:lab03")
    final = admin.get(answer.location, htmx=True)
    assert not final.all("//*[@hx-get]"), "the polling ends"
    assert "a is ready." in final.texts("//*[@id='flash']")[0]
    assert "line 50" in final.texts("//pre")[0]
    assert "0.7 GiB" in admin.get("/templates").text


def test_a_failed_one_says_why_and_is_built_again(admin: Client, woken: list[str]) -> None:
    template = make_template(host(), state=TemplateState.BUILDING)
    operations.finish(operations.enqueue(None, template, OperationKind.BUILD).id, "agent", "E: Unable to locate <nope>")
    page = admin.get(f"/templates/{template.id}")
    assert "The template could not be built." in page.text
    assert "E: Unable to locate <nope>" in page.text
    assert admin.submit(page.form("Try again")).status == 303
    assert admin.post(f"/templates/{template.id}/retry").status == 409
    assert template.state == TemplateState.BUILDING
    assert woken == ["lab03"]


def test_a_build_is_cancelled(admin: Client, woken: list[str]) -> None:
    template = make_template(host(), state=TemplateState.BUILDING)
    operations.enqueue(None, template, OperationKind.BUILD)
    operations.claim(template.host_id)
    here = f"/templates/{template.id}"
    cancel = admin.get(here).form("Cancel the build")
    assert admin.submit(cancel).location == here
    page = admin.get(here)
    assert "root-of-lab cancelled the build: lab03 ends it as soon as it can." in page.text
    assert "Cancel the build" not in page.buttons()
    operations.finish(operation().id, "agent:lab03", "Cancelled by root-of-lab.")
    assert "root-of-lab cancelled the build." in admin.get(here, htmx=True).texts("//*[@id='flash']")[0]
    page = admin.get(here)
    assert not page.all("//*[@id='template']/*[contains(@class, 'refused')]"), "nothing went wrong"
    assert "root-of-lab cancelled the build." in page.text
    assert "Change and build again" in page.text
    refused = admin.submit(cancel)
    assert (refused.status, "base is not being built." in refused.text) == (409, True)
    assert admin.submit(page.form("Try again")).status == 303


def test_a_failure_beside_a_cancelling_is_said(admin: Client) -> None:
    template = make_template(host(), state=TemplateState.BUILDING)
    number = operations.enqueue(None, template, OperationKind.BUILD).id
    operations.claim(template.host_id)
    builds.cancel(None, template)
    operations.finish(number, "agent:lab03", "Connect: gone. Wait.")
    page = admin.get(f"/templates/{template.id}")
    assert "The template could not be built." in page.text
    assert "Connect: gone. Wait." in page.text


def test_retiring_asks_first(admin: Client, woken: list[str]) -> None:
    template = make_template(host())
    page = admin.get(admin.get(f"/templates/{template.id}").link("Retire…"))
    assert page.h1 == "Retire base?"
    assert admin.submit(page.form("Retire it")).status == 303
    assert template.retired_at is not None
    assert operation().kind == OperationKind.DISCARD
    shown = admin.get(f"/templates/{template.id}")
    assert "Retired" in shown.text
    assert "Waiting for the host" in shown.text
    assert admin.post(f"/templates/{template.id}/retire").status == 409
    assert "Retired" in admin.get("/templates").text


def test_a_retired_one_says_what_it_waits_for_and_is_tried_again(admin: Client, woken: list[str]) -> None:
    template, machine = make_template(host()), make_instance(make_user(), only().host, "gamma")
    machine.template_id = template.id
    creation = operations.enqueue(None, machine, OperationKind.CREATE)
    removal = templates.retire(None, template)
    here = f"/templates/{template.id}"
    assert "Waiting for machines that are being made from it, 0 %" in admin.get(here).text
    operations.finish(creation.id, "agent:lab03")
    assert "Waiting for the host, 0 %" in admin.get(here).text
    operations.finish(removal.id, "agent:lab03", "Connect: gone. Wait.")
    assert "The image could not be removed." in admin.get(here, htmx=True).texts("//*[@id='flash']")[0]
    page = admin.get(here)
    assert "Connect: gone. Wait." in page.text
    assert "Retire…" not in page.text
    assert admin.submit(page.form("Try again")).status == 303
    assert (operation().kind, operation().state, woken) == (OperationKind.DISCARD, "queued", ["lab03"])
    assert admin.post(f"{here}/retry").status == 409
    operations.finish(operation().id, "agent:lab03")
    assert "Try again" not in admin.get(here).buttons()
    assert admin.post(f"{here}/retry").status == 409


def test_who_may_use_it_is_changed(admin: Client) -> None:
    user, template = make_user("liwei"), make_template(host())
    form = admin.get(f"/templates/{template.id}").form("Save")
    form = form.fill(**{"Description": "For ML", "Usernames of those who may": "liwei"})
    form.values["audience"] = "chosen"
    assert admin.submit(form).status == 303
    changed = only()
    assert (changed.description, changed.for_everyone, changed.users) == ("For ML", False, [user])
    page = admin.post(f"/templates/{template.id}", {"audience": "chosen", "users": "liwei nobody-here"})
    assert page.status == 422
    assert "nobody called nobody-here" in errors(page)


def test_people_make_machines_from_templates_only(client: Client, woken: list[str]) -> None:
    lab = host()
    template = make_template(lab, "desktop", desktop=True, description="Xfce")
    make_template(lab, "secret", for_everyone=False)
    client.login_as(make_user("liwei"))
    page = client.get("/machines")
    assert page.texts("//fieldset[@id='place']//label") == ["desktop on lab03 Xfce with a desktop · 0.0 GiB"]
    form = page.form("Create machine")
    assert form.values["place"] == f"template:{template.id}", "the only one is chosen"
    answer = client.submit(form)
    assert answer.status == 303
    assert client.post("/machines/new", MACHINE | {"place": "lab03/debian/12"}).status == 422


def test_nobody_makes_a_machine_from_a_template_that_is_not_theirs(client: Client, woken: list[str]) -> None:
    lab = host()
    make_template(lab)
    secret = make_template(lab, "secret", for_everyone=False)
    client.login_as(make_user("liwei"))
    for place in (f"template:{secret.id}", "template:99999", "template:x", "template:"):
        page = client.post("/machines/new", MACHINE | {"place": place})
        assert page.status == 422, place
        assert "from the list" in errors(page)
    assert woken == []


def test_admins_are_offered_templates_first_and_images(admin: Client) -> None:
    lab = host()
    make_template(lab)
    host("lab04")
    page = admin.get("/machines/new")
    assert page.texts("//fieldset[@id='place']//label") == [
        "base on lab03 0.0 GiB",
        "image debian/12 (Debian) on lab03",
        "debian/12 (Debian) on lab04",
    ]
    assert page.all("//details[.//*[@name='place']]/@open") == [], "images stay out of the way"
    again = admin.post("/machines/new", MACHINE | {"place": "lab04/debian/12", "cpus": "0"})
    assert again.status == 422
    assert again.all("//input[@name='place'][@checked]/@value") == ["lab04/debian/12"]
    assert len(again.all("//details[@open]")) == 1
