"""A machine for somebody who is being approved: from which template, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass

from flask import flash, request, session

from app import queue
from app.language import gettext as _
from app.models import Instance, User
from app.services import accounts, admission, instances
from app.services.admission import Admitted

_LAST = "approve_template"  # what this admin chose the last time, kept in their session


@dataclass(frozen=True)
class Offer:
    """The templates there are, and the one to begin with; "": no machine."""

    names: list[str]
    first: str


def offer() -> Offer:
    """What can be chosen; as the last time, else the first template."""
    names = admission.template_names()
    last = session.get(_LAST)
    return Offer(names, last if last == "" or last in names else next(iter(names), ""))


def chosen() -> str:
    """The template that was chosen in the form that was sent; it is remembered."""
    template = request.form.get("template", "")
    if "template" in request.form:
        session[_LAST] = template[:63]
    return template


def asked(admitted: Admitted) -> None:
    """After the commit: have the host begin, or say why there is no machine."""
    if admitted.host is not None:
        queue.wake(admitted.host.name)
    elif admitted.refused is not None:
        who, why = admitted.user.display_name, str(admitted.refused)
        flash(_("%(name)s is approved, but has no machine yet: %(why)s", name=who, why=why), "error")


def made(username: str) -> list[Instance] | None:
    """The machines of somebody who was just approved; None for nobody."""
    return instances.of_user(accounts.get(username)) if username else None


def left(person: User) -> None:
    """After an approval was taken back: say what else was made."""
    for machine in instances.of_user(person):
        flash(_("The machine %(name)s stays. Delete it if it is not wanted.", name=machine.name))
