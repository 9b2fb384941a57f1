"""Bringing a machine to another host of its LXD cluster: what that means, where it can go, and asking for it."""

from __future__ import annotations

from flask import Response, url_for
from wtforms import SelectField

from app import queue
from app.errors import DomainError, InvalidInput
from app.extensions import transaction
from app.language import lazy_gettext as _l
from app.models import Instance
from app.services import instances, inventory, moving, placing
from app.web import room_words
from app.web.forms import RoomForm
from app.web.machine_care import bp
from app.web.machine_words import silent_after
from app.web.render import go, render
from app.web.sessions import me


class MoveForm(RoomForm):
    """Where to."""

    host = SelectField(_l("New host"), validate_choice=False)


@bp.get("/<name>/move")
def ask_move(name: str) -> Response:
    """What moving means, and where it can go."""
    return _page(instances.get(me(), name), MoveForm(formdata=None))


@bp.post("/<name>/move")
def move(name: str) -> Response:
    """Have it moved."""
    machine, form = instances.get(me(), name), MoveForm()
    if form.validate():
        try:
            with transaction():
                moving.request(me(), machine, inventory.host(form.host.data or ""), anyway=form.anyway.data)
        except InvalidInput as error:
            form.refuse(error)
        except DomainError as error:
            form.against(error)
        else:
            queue.wake(machine.host.name)
            return go(url_for("machines.show", name=machine.name))
    return _page(instances.get(me(), name), form, 422)


def _page(machine: Instance, form: MoveForm, status: int = 200) -> Response:
    found = moving.neighbours(machine.host)
    rooms = placing.rooms(silent_after(), [host.id for host in found])
    best = sorted(found, key=lambda host: (rooms[host.id].crowding, host.name))
    form.host.choices = [(host.name, host.name) for host in best]
    return render(
        "machines/move.html",
        machine=machine,
        form=form,
        rooms=[room_words.about(rooms[host.id]) for host in best],
        nowhere=moving.why_nowhere(machine.host),
        booked=_booked(machine),
        errors_found=bool(form.errors),
        status=status,
    )


def _booked(machine: Instance) -> DomainError | None:
    try:
        moving.refuse_booked(machine)
    except DomainError as error:
        return error
    return None
