"""For admins: every instance of every host, Berth's or not, and what each uses."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, flash, request, url_for
from wtforms import SelectField

from app import queue
from app.errors import Conflict, DomainError, InvalidInput
from app.extensions import transaction
from app.language import lazy_gettext as _l
from app.models import Host, Readable
from app.services import (
    accounts,
    adoption,
    attachments,
    instances,
    inventory,
    operations,
    readings,
    snapshots,
    surveys,
)
from app.services.surveys import Row
from app.web import csv_files, machine_table, machine_words, survey_words
from app.web.forms import PageForm
from app.web.render import go, render
from app.web.security import admin_required
from app.web.sessions import me

bp = Blueprint("all_machines", __name__, url_prefix="/admin/machines")

FILTERS = ("q", "host", "state", "owner")
OTHER = {  # beyond Berth's own words
    "error": ("failed", _l("Error")),
    "unknown": ("no_data", _l("Not known")),
    surveys.DISK_FULL: ("disk_full", _l("Disk nearly full")),
}


class AdoptForm(PageForm):
    """Whose it is to be."""

    owner = SelectField(_l("Owner"))


@bp.get("")
@admin_required
def index() -> Response:
    """All of them, to search and to filter."""
    chosen = _chosen()
    page = max(1, request.args.get("page", 1, type=int))
    listing = _listing(chosen, page)
    machines = [row.machine for row in listing.rows if row.machine]
    gpus = attachments.by_machine(machines) if machines else {}
    return render(
        "all_machines/index.html",
        listing=listing,
        chosen=chosen,
        filtered={name: value for name, value in chosen.items() if value},
        page=page,
        pages=max(1, -(-listing.total // surveys.PAGE)),
        gpus={key: [allocation.gpu.minor for allocation in found] for key, found in gpus.items()},
        words=words_of,
        foreign=surveys.FOREIGN,
    )


@bp.get("/list.csv")
@admin_required
def csv_file() -> Response:
    """All that match as a file, by the filters of the page: sizes in bytes, times in UTC."""
    found = _listing(_chosen(), 0)
    return csv_files.answer("machines.csv", machine_table.HEADER, map(machine_table.row, found.rows))


@bp.get("/<host_name>/<name>")
@admin_required
def show(host_name: str, name: str) -> Response:
    """One instance: its settings, devices and snapshots, and its host's pools, profiles and images."""
    host = inventory.host(host_name)
    row = surveys.find(host, name)
    return _page(host, row, _form(row))


@bp.post("/<host_name>/<name>/adopt")
@admin_required
def adopt(host_name: str, name: str) -> Response:
    """Make an instance that somebody made by hand a machine of Berth's."""
    host = inventory.host(host_name)
    row = surveys.find(host, name)
    form = _form(row, sent=True)
    if form.validate():
        try:
            with transaction():
                adoption.adopt(me(), row, accounts.get(form.owner.data))
        except InvalidInput as error:
            form.refuse(error)
        except Conflict as error:
            flash(str(error), "error")
            return _page(host, row, form, 409)
        except DomainError as error:
            form.form_errors.append(str(error))
        else:
            queue.wake(host.name)
            return go(url_for("machines.show", name=name))
    return _page(host, surveys.find(host, name), form, 422)


@bp.post("/<host_name>/<name>/read/<any(log, console):source>")
@admin_required
def read(host_name: str, name: str, source: str) -> Response:
    """Have a log of it read out by its host's agent."""
    host = inventory.host(host_name)
    row = surveys.find(host, name)
    with transaction():
        readings.ask(me(), host, row.name, Readable(source))
    queue.wake(host.name)
    return go(url_for("all_machines.show", host_name=host.name, name=row.name, _anchor="logs"))


def words_of(status: str) -> tuple[str, Any]:
    """The code in app.web.states and the word for what LXD or Berth calls so."""
    return machine_words.STATUS.get(status) or OTHER.get(status, OTHER["unknown"])


def _chosen() -> dict[str, str]:
    return {name: request.args.get(name, "")[:120] for name in FILTERS}


def _listing(chosen: dict[str, str], page: int) -> surveys.Listing:
    return surveys.listing(chosen["q"], chosen["host"], chosen["state"], chosen["owner"], page)


def _form(row: Row, *, sent: bool = False) -> AdoptForm:
    form = AdoptForm() if sent else AdoptForm(formdata=None, owner=me().username)
    people = instances.possible_owners() if row.machine is None else []
    form.owner.choices = [(person.username, f"{person.display_name} ({person.username})") for person in people]
    return form


def _page(host: Host, row: Row, form: AdoptForm, status: int = 200) -> Response:
    machine = row.machine
    newest = operations.last(machine.id) if machine else None
    asked = readings.of_instance(host, row.name)
    return render(
        "all_machines/show.html",
        fragment="all_machines/_logs.html",
        readings=asked,
        waiting=any(one.answered_at is None for one in asked),
        silence=machine_words.silence_of(host),
        words=survey_words,
        host=host,
        row=row,
        form=form,
        state=words_of(row.status),
        busy=newest is not None and newest.state in operations.OPEN,
        snapshots=snapshots.shown(row.seen),
        obstacle="" if machine else adoption.obstacle(row),
        sizes={} if machine else adoption.sizes(row),
        failure="" if machine else adoption.failure(host, row.name),
        gpus=attachments.by_machine([machine]).get(machine.id, []) if machine else [],
        errors_found=bool(form.errors),
        status=status,
    )
