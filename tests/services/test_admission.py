"""A person let in with a machine: where it goes, what it is called, and that what is wrong with it keeps nobody out."""

from __future__ import annotations

from datetime import UTC, timedelta

import pytest

from app import clock
from app.extensions import db
from app.models import Instance, OperationKind, User, UserState
from app.services import accounts, admission, policy
from app.services.admission import Admitted
from tests.factories import make_admin, make_host, make_instance, make_pending, make_template, make_user

pytestmark = pytest.mark.usefixtures("app")


def approve(username: str, template: str = "base", actor: User | None = None) -> Admitted:
    who = actor or User(username="ada")
    return admission.approve(username, 10, actor=who, zone=UTC, template=template, silence=timedelta(minutes=1))


def machines() -> list[Instance]:
    return list(db.session.scalars(db.select(Instance)))


def test_the_machine_is_the_persons_own_of_the_usual_size_within_the_rules() -> None:
    policy.current().max_memory_gib = 8
    template = make_template(make_host("lab03", seen_at=clock.now()), "base", for_everyone=False)
    make_pending("liwei")
    admitted = approve("liwei", actor=make_admin("ada"))
    (made,) = machines()
    assert (admitted.name, admitted.host.name, admitted.refused) == ("liwei", "lab03", None)
    assert (made.owner_id, made.template_id, made.image) == (admitted.user.id, template.id, template.image)
    assert (made.cpus, made.memory_mib, made.disk_gib) == (4, 8192, 50)
    assert (admitted.operation.kind, admitted.user.state) == (OperationKind.CREATE, UserState.ACTIVE)


@pytest.mark.parametrize(("name", "said"), [("base", "lab03 does not answer."), ("gone", "No host offers")])
def test_who_gets_no_machine_is_let_in_all_the_same(name: str, said: str) -> None:
    make_template(make_host("lab03"), "base")
    make_pending("liwei")
    admitted = approve("liwei", name)
    assert said in str(admitted.refused)
    assert admitted.host is None
    assert (accounts.get("liwei").state, machines()) == (UserState.ACTIVE, [])


def test_without_a_template_there_is_no_machine_and_no_reason() -> None:
    make_pending("liwei")
    assert approve("liwei", "").refused is None
    assert machines() == []


@pytest.mark.parametrize(
    ("username", "name"),
    [
        ("liwei", "liwei-3"),
        ("mei", "mei"),
        ("new", "new-2"),
        ("berth-fan", "m-berth-fan"),
        ("wang-", "wang"),
        ("a" * 25 + "-bcdef", "a" * 25),
    ],
)
def test_a_name_is_made_of_the_username(username: str, name: str) -> None:
    host, owner = make_host(), make_user("other")
    for taken in ("liwei", "liwei-2"):
        make_instance(owner, host, taken)
    make_instance(owner, host, "mei", deleted_at=clock.now())
    assert admission.free_name(username) == name


def test_templates_are_named_once_those_with_a_desktop_first() -> None:
    one, two = make_host(), make_host()
    for host in (one, two):
        make_template(host, "base")
        make_template(host, "xfce", desktop=True)
    make_template(one, "old", retired_at=clock.now())
    assert admission.template_names() == ["xfce", "base"]
