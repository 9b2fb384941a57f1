"""A machine's backup: asked for, downloaded from the host's agent with a ticket, removed."""

from __future__ import annotations

from urllib.parse import urlencode, urlsplit, urlunsplit

from flask import Blueprint, Response, flash, request, url_for
from wtforms import SelectField

from app import queue
from app.environment import WEBSOCKET
from app.errors import Conflict, DomainError
from app.extensions import limiter, settings, transaction
from app.language import gettext as _
from app.language import lazy_gettext as _l
from app.models import Host, Instance
from app.models.backups import KEPT
from app.services import backups, care, instances, operations, snapshots
from app.web.forms import PageForm
from app.web.machine_words import silence_of
from app.web.render import go, render
from app.web.security import CSP
from app.web.sessions import me, this_sign_in
from app.web.times import moment_text

bp = Blueprint("backups", __name__, url_prefix="/machines/<name>/backup")


class BackupForm(PageForm):
    """What it is made of."""

    snapshot = SelectField(_l("What it holds"), validate_choice=False)


@bp.get("")
def show(name: str) -> Response:
    """The one there is, and how to get another."""
    return _page(instances.get(me(), name))


@bp.post("")
@limiter.limit("20 per hour")
def make(name: str) -> Response:
    """Have one made, in place of the last one."""
    machine = instances.get(me(), name)
    try:
        with transaction():
            backups.request(me(), machine, request.form.get("snapshot", ""))
    except DomainError as error:
        flash(str(error), "error")
        return _page(instances.get(me(), name), 404 if error.code == "not_found" else 409)
    queue.wake(machine.host.name)
    return go(url_for("machines.show", name=machine.name))


@bp.post("/file")
@limiter.limit("60 per hour")
def file(name: str) -> Response:
    """Send the browser to the host's agent, which has the file. The ticket is part of the address, so that no
    JavaScript is needed; it is used up by the time that anybody could read it in a log."""
    machine = instances.get(me(), name)
    if trouble := _trouble(machine.host):
        raise Conflict(trouble)
    with transaction():
        key = backups.ticket(this_sign_in(), machine)
    return go(_agent(machine.host, backup=key))


@bp.post("/remove")
def remove(name: str) -> Response:
    """Have it removed."""
    machine = instances.get(me(), name)
    try:
        with transaction():
            backups.remove(me(), machine)
    except Conflict as error:
        flash(str(error), "error")
    else:
        flash(_("The backup is removed."))
    return go(url_for("backups.show", name=machine.name))


def _page(machine: Instance, status: int = 200) -> Response:
    found, newest, trouble = backups.current(machine), operations.last(machine.id), _trouble(machine.host)
    kept = snapshots.of(machine)
    form = BackupForm(formdata=None, snapshot=request.args.get("snapshot", ""))
    form.snapshot.choices = [("", _("The machine as it is now"))]
    form.snapshot.choices += [(one.name, _("Its snapshot of %(at)s", at=moment_text(one.at))) for one in kept]
    page = render(
        "machines/backup.html",
        machine=machine,
        backup=found,
        file_name=backups.file_name(machine, found) if found else "",
        trouble=trouble,
        form=form,
        hours=round(KEPT.total_seconds() / 3600),
        busy=newest is not None and newest.state in operations.OPEN,
        there=machine.status in care.THERE and machine.delete_at is None,
        status=status,
    )
    if not trouble:  # the form's answer leads there
        policy = CSP.replace("form-action 'self'", f"form-action 'self' {_agent(machine.host)}")
        page.headers["Content-Security-Policy"] = policy
    return page


def _agent(host: Host, **query: str) -> str:
    """The address over HTTP of what the host's agent serves."""
    scheme, place, path, *_rest = urlsplit(host.terminal_url)
    return urlunsplit((scheme.replace("ws", "http"), place, path or "/", urlencode(query), ""))


def _trouble(host: Host) -> str:
    """Why nothing can be downloaded from it now, or ""."""
    if silence := silence_of(host):
        return silence
    if not WEBSOCKET.fullmatch(host.terminal_url):
        return _("%(host)s hands out no files yet. Its agent does so once it is started.", host=host.name)
    if settings().https and not host.terminal_url.startswith("wss://"):
        return _(
            "%(host)s hands out files without TLS, which browsers refuse on this page. An admin sets "
            "BERTH_TERMINAL_URL for its agent; the README says how.",
            host=host.name,
        )
    return ""
