"""Templates through the pages: made in three ways, watched, tried again, retired, and offered to those who may."""

from __future__ import annotations

import pytest

from app import clock
from app.drivers.images import Made
from app.extensions import db
from app.models import Operation, OperationKind, Template, TemplateKind, TemplateState
from app.services import operations, templates
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
    ],
)
def test_bad_fields_are_named(
    admin: Client, woken: list[str], way: str, field: str, value: str, words: str | None
) -> None:
    make_template(host())
    sent = {"name": "ml", "host": "lab03", "recipe": "base", "audience": "everyone", "image": "debian/12"}
    if field == "users":
        sent["audience"] = "chosen"
    page = admin.post(f"/templates/new/{way}", sent | {field: value})
    assert page.status == 422
    if words:
        assert words in errors(page)
        assert words in page.texts(f"//*[@id='{field}-error']")[0]
    assert not page.all("//main//b")
    assert (len(templates.every()), woken) == (1, [])


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
    templates.built(only().id, Made(700 << 20))
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
    assert page.texts("//option") == ["desktop (Xfce, with a desktop) on lab03"]
    answer = client.submit(page.form("Create machine").fill(Template=f"template:{template.id}"))
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
    assert page.texts("//select[@name='place']//option") == [
        "base on lab03",
        "image debian/12 (Debian) on lab03",
        "debian/12 (Debian) on lab04",
    ]
