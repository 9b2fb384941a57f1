"""The desktop of a workstation itself, for admins: on which port it answers Remote Desktop, and whether it does."""

from __future__ import annotations

from sqlalchemy import select

from app.drivers.doors import Door
from app.errors import InvalidInput
from app.extensions import db
from app.language import gettext as _
from app.models import Host, Port, User
from app.services import audit


def offer(actor: str, host: Host, port: int | None) -> None:
    """Offer it to admins on this port, or (None) no more. Raises InvalidInput for a port that leads, or could come to
    lead, into somebody's machine: what answers there is not the workstation, and would be told its password."""
    if port is not None:
        if not 1 <= port <= 65535:
            raise InvalidInput(_("A port is a number from 1 to 65535; Remote Desktop's own is 3389."), field="port")
        taken = select(Port.id).where(Port.host_id == host.id, Port.number == port, Port.released_at.is_(None))
        if host.first_port <= port <= host.last_port or db.session.scalar(taken) is not None:
            raise InvalidInput(_("Port %(port)s of %(host)s is for people's machines.", port=port, host=host.name),
                               _("Choose another one."), field="port")  # fmt: skip
    host.desktop_port, host.desktop_answer = port, None
    db.session.flush()
    audit.record(actor, "host.desktop", f"host:{host.name}", port=port)


def door(host: Host) -> Door | None:
    """Where to knock for it, where it is offered."""
    return None if host.desktop_port is None else Door("rdp", host.listen, host.desktop_port)


def note(host: Host, answer: str) -> None:
    """Write down whether Remote Desktop answered, if it is news."""
    if host.desktop_answer != answer:
        host.desktop_answer = answer
        db.session.flush()


def handed_out(actor: User, host: Host) -> None:
    """An admin was given the file."""
    audit.record(actor.username, "host.desktop.file", f"host:{host.name}", port=host.desktop_port)
