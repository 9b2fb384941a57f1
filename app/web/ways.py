"""The ways into a machine: what its page offers to paste and to download, a new password, and mending."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, flash, url_for

from app import queue
from app.errors import DomainError
from app.extensions import limiter, transaction
from app.language import gettext as _
from app.models import Instance, InstanceStatus
from app.services import access, instances, machine_passwords, shares, ssh_keys, unix_ids
from app.web import connect, door_words
from app.web.render import go, render
from app.web.sessions import me
from app.web.ssh_keys import KeyForm

bp = Blueprint("ways", __name__, url_prefix="/machines")


def context(machine: Instance) -> dict[str, Any]:
    """What machines/_ways.html needs."""
    kit = connect.kit(machine)
    mine = machine.owner_id == me().id
    return {
        "machine": machine,
        "kit": kit,
        "mine": mine,
        "made": machine.status not in {InstanceStatus.CREATING, InstanceStatus.FAILED},
        "keys": ssh_keys.of_user(machine.owner_id),
        "key_form": KeyForm(formdata=None),
        "doors": door_words.doors(kit),
        "notes": door_words.notes(kit),
        "shares": shares.of_machine(machine),
        "uid": unix_ids.uid_of(machine.owner),
    }


@bp.get("/<name>/ways")
def show(name: str) -> Response:
    """The part of the machine's page that is about the ways in; on its own for those who have no JavaScript."""
    machine = instances.get(me(), name)
    return render("machines/ways.html", fragment="machines/_ways.html", **context(machine))


@bp.get("/<name>/health")
def health(name: str) -> Response:
    """Whether its doors answer."""
    machine = instances.get(me(), name)
    return render("machines/ways.html", fragment="machines/_health.html", **context(machine))


@bp.get("/<name>/rdp")
def rdp(name: str) -> Response:
    """The .rdp file."""
    machine = instances.get(me(), name)
    return download(connect.with_rdp(machine).rdp_file, f"{machine.name}.rdp", "application/x-rdp")


@bp.get("/<name>/ssh-config")
def ssh_config(name: str) -> Response:
    """The block for ~/.ssh/config, as a file."""
    machine = instances.get(me(), name)
    return download(config_text(connect.with_ssh(machine)), f"{machine.name}.ssh-config", "text/plain")


@bp.post("/<name>/password")
@limiter.limit("20 per hour")
def password(name: str) -> Response:
    """A new password for the account inside, shown this once."""
    machine = instances.get(me(), name)
    try:
        with transaction():
            _operation, text = machine_passwords.request(me(), machine)
    except DomainError as error:
        flash(str(error), "error")
        return go(url_for("machines.show", name=machine.name))
    queue.wake(machine.host.name)
    return render("machines/password.html", machine=machine, text=text, kit=connect.kit(machine))


@bp.post("/<name>/mend")
def mend(name: str) -> Response:
    """Have ports, account and keys made where they are missing."""
    machine = instances.get(me(), name)
    try:
        with transaction():
            access.mend(me(), machine)
    except DomainError as error:
        flash(str(error), "error")
    else:
        queue.wake(machine.host.name)
        flash(_("The host's agent looks after the ways into %(name)s now.", name=machine.name))
    return go(url_for("machines.show", name=machine.name))


def config_text(kit: connect.Kit) -> str:
    """The block, with what has to go into ~/.ssh/known_hosts before it as a comment."""
    return f"# In ~/.ssh/known_hosts, so that {kit.machine.name} is known:\n# {kit.known_hosts}\n{kit.ssh_config}"


def download(text: str, name: str, mimetype: str) -> Response:
    """A file to keep. `name` is made of a machine's."""
    answer = Response(text.encode(), mimetype=mimetype)
    answer.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    answer.headers["X-Content-Type-Options"] = "nosniff"
    return answer
