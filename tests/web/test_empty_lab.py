"""A lab in which there is nothing yet: each page says so, and what to do next."""

from __future__ import annotations

import pytest

from app.models import User
from tests.factories import make_host
from tests.page import Client

EMPTY = '//*[contains(@class, "empty")]'
HOSTS, MACHINE = ("Add a host", "/hosts"), ("New machine", "/machines/new")


@pytest.mark.parametrize(
    ("path", "link", "target"),
    [
        ("/calendar", *HOSTS),
        ("/live", *HOSTS),
        ("/machines/new", *HOSTS),
        ("/templates/new/recipe", *HOSTS),
        ("/templates/new/image", *HOSTS),
        ("/templates/new/machine", *MACHINE),
        ("/admin/machines", *MACHINE),
    ],
)
def test_an_admin_is_led_on(client: Client, admin: User, path: str, link: str, target: str) -> None:
    assert client.get(path).link(link) == target


@pytest.mark.parametrize(
    ("path", "what"), [("/calendar", "There are no GPUs to book yet."), ("/live", "There are no hosts yet.")]
)
def test_others_cannot_add_hosts(client: Client, user: User, path: str, what: str) -> None:
    page = client.get(path)
    assert page.texts(EMPTY) == [f"{what} An admin adds them."]
    assert "Add a host" not in page.links()


def test_who_cannot_make_a_machine_is_told_whom_to_ask(client: Client, user: User) -> None:
    assert "No host has an image to make a machine from yet. Ask an admin." in client.get("/machines/new").text


def test_an_admin_with_a_host_is_sent_for_an_image(client: Client, admin: User) -> None:
    make_host("lab01")
    page = client.get("/machines/new")
    assert page.link("New template") == "/templates/new/recipe"
    assert "Add a host" not in page.links()


def test_a_search_that_finds_nothing_can_be_taken_back(client: Client, admin: User) -> None:
    assert client.get("/admin/machines?q=x").link("Show all") == "/admin/machines"


@pytest.mark.parametrize("path", ["/bookings/new?now=1&check=1", "/find?find=1&count=2&hours=6"])
def test_without_any_gpu_no_other_model_is_asked_for(client: Client, user: User, path: str) -> None:
    page = client.get(path)
    assert page.status == 422
    assert "There is no GPU to book. An admin adds hosts and puts GPUs into service." in page.text
    assert "Choose another model" not in page.text


def test_who_named_a_model_may_choose_another(client: Client, user: User) -> None:
    page = client.get("/bookings/new?now=1&check=1&model=NVIDIA+H100")
    assert "Choose another model or host." in page.text
