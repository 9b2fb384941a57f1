"""For admins: the workstation's own desktop, where it answers Remote Desktop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Response, flash, url_for

from app import queue
from app.errors import Conflict, InvalidInput
from app.extensions import transaction
from app.language import gettext as _
from app.language import lazy_gettext as _l
from app.models import Host
from app.services import desktops, inventory
from app.web import rdp
from app.web.connect import bracketed
from app.web.door_words import WHY
from app.web.forms import PageForm, required
from app.web.machine_form import WholeNumber
from app.web.machine_words import silence_of
from app.web.render import go, render
from app.web.security import admin_required
from app.web.sessions import me
from app.web.ways import download

bp = Blueprint("host_desktop", __name__, url_prefix="/hosts")


class DesktopForm(PageForm):
    """The port that it answers on."""

    port = WholeNumber(_l("Port"), [required()])


@dataclass(frozen=True)
class DesktopShown:
    """Whether it answers: `state` is a code of app.web.states."""

    state: str
    word: str
    why: str = ""

    @property
    def final(self) -> bool:
        """Whether nothing more is expected to change by itself."""
        return self.state == "in_use"


def context(host: Host, form: DesktopForm | None = None) -> dict[str, Any]:
    """What hosts/_desktop.html needs."""
    return {
        "host": host,
        "desktop": _shown(host),
        "desktop_address": f"{bracketed(host.address or host.name)}:{host.desktop_port}",
        "desktop_form": form or DesktopForm(formdata=None, port=host.desktop_port or 3389),
    }


@bp.get("/<name>/desktop")
@admin_required
def show(name: str) -> Response:
    """The part of the host's page about it."""
    return _page(inventory.host(name))


@bp.post("/<name>/desktop")
@admin_required
def offer(name: str) -> Response:
    """Offer it on a port."""
    host, form = inventory.host(name), DesktopForm()
    if form.validate():
        try:
            with transaction():
                desktops.offer(me().username, host, form.port.data)
        except InvalidInput as error:
            form.refuse(error)
        else:
            queue.wake(host.name)
            return go(url_for("hosts.show", name=host.name, _anchor="desktop"))
    return _page(host, form, 422)


@bp.post("/<name>/desktop/off")
@admin_required
def withdraw(name: str) -> Response:
    """Offer it no more."""
    host = inventory.host(name)
    with transaction():
        desktops.offer(me().username, host, None)
    flash(_("The desktop of %(host)s is not offered any more. What listens there goes on.", host=host.name))
    return go(url_for("hosts.show", name=host.name))


@bp.post("/<name>/desktop/file")
@admin_required
def file(name: str) -> Response:
    """The .rdp file; that it was given to whom is on record, so it is asked for by POST."""
    host = inventory.host(name)
    if host.desktop_port is None:
        raise Conflict(_("The desktop of %(host)s is not offered.", host=host.name))
    text = rdp.rdp_file(bracketed(host.address or host.name), host.desktop_port, None, rdp.signer())
    with transaction():
        desktops.handed_out(me(), host)
    return download(text, f"{host.name}.rdp", "application/x-rdp")


def _page(host: Host, form: DesktopForm | None = None, status: int = 200) -> Response:
    errors = bool(form and form.errors)
    found = context(host, form)
    return render("hosts/desktop.html", fragment="hosts/_desktop.html", errors_found=errors, status=status, **found)


def _shown(host: Host) -> DesktopShown | None:
    code = host.desktop_answer
    if host.desktop_port is None:
        return None
    if silence := silence_of(host):
        return DesktopShown("not_reachable", _("Not known"), silence)
    if code is None:
        return DesktopShown("attaching", _("Not tried yet"))
    if code == "":
        return DesktopShown("in_use", _("Answers"))
    return DesktopShown("failed", _("Does not answer"), str(WHY.get(code, "")))
