"""For admins: GPUs kept free for work on a workstation, and what becomes of the bookings in the way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flask import Blueprint, Response, flash, request, url_for
from werkzeug.datastructures import MultiDict
from wtforms import SelectMultipleField, StringField
from wtforms.validators import Optional
from wtforms.widgets import CheckboxInput, ListWidget

from app import clock, queue
from app.errors import Conflict, InvalidInput
from app.extensions import transaction
from app.language import gettext as _
from app.language import lazy_gettext as _l
from app.language import ngettext
from app.models import Gpu, Host
from app.services import inventory, maintenance
from app.services.maintenance import Fate
from app.services.windows import Window, snapped
from app.services.words import gpu_label, gpu_list
from app.web import local_times, times
from app.web.bookings.blueprint import slot
from app.web.forms import PageForm, at_most, filled_in, required
from app.web.render import go, render
from app.web.security import admin_required, comes_back
from app.web.sessions import me

bp = Blueprint("maintenance", __name__, url_prefix="/hosts/<host_name>/maintenance")

FATES = {
    Fate.MOVED: _l("Moves to %(gpus)s"),
    Fate.ELSEWHERE: _l("Moves to %(gpus)s of %(host)s"),
    Fate.CONTINUED: _l("Ends %(end)s; its rest moves to %(gpus)s of %(host)s from then on"),
    Fate.SHORTENED: _l("Ends %(end)s; the rest is given back"),
    Fate.CANCELLED: _l("Is cancelled; its hours are given back"),
}


class BlockForm(PageForm):
    """Which GPUs, from when, until when, and what for."""

    gpu = SelectMultipleField(_l("GPUs"), option_widget=CheckboxInput(), widget=ListWidget(prefix_label=False))
    start_date = StringField(_l("Start date"), [required()])
    start_time = StringField(_l("Start time"), [Optional()])
    end_date = StringField(_l("End date"), [required()])
    end_time = StringField(_l("End time"), [required()])
    reason = StringField(_l("What for"), [Optional(), at_most(maintenance.REASON_LENGTH)])

    def refuse(self, error: InvalidInput) -> None:
        """The services speak of moments."""
        names = {"starts_at": "start_time", "ends_at": "end_time", "gpus": "gpu"}
        error.field = names.get(error.field, error.field)
        super().refuse(error)


@bp.get("")
@admin_required
def index(host_name: str) -> Response:
    """What is planned, a form for more, and what that would do to bookings."""
    host = inventory.host(host_name)
    if "end_date" not in request.args:
        return _page(host, _fresh(host))
    form, asked = _read(host, request.args)
    return _page(host, form, asked, status=200 if asked else 422)


@bp.post("")
@admin_required
@comes_back(lambda: filled_in("maintenance.index", "agreed"))
def schedule(host_name: str) -> Response:
    """Do it, as it was shown."""
    host = inventory.host(host_name)
    form, asked = _read(host, request.form)
    if asked is None:
        return _page(host, form, status=422)
    try:
        with transaction():
            _made, hosts = maintenance.schedule(
                me(), host, *asked, form.reason.data or "", request.form.get("agreed", "")
            )
    except Conflict as error:
        flash(str(error), "error")
        return _page(host, form, asked, status=409)
    except InvalidInput as error:
        form.refuse(error)
        return _page(host, form, status=422)
    for name in sorted(hosts):
        queue.wake(name)
    flash(_("The maintenance is planned. Everybody whose booking changed is told."))
    return go(url_for("maintenance.index", host_name=host.name))


@bp.post("/<int(max=9223372036854775807):maintenance_id>/lift")
@admin_required
def lift(host_name: str, maintenance_id: int) -> Response:
    """Give the GPUs free again."""
    host = inventory.host(host_name)
    with transaction():
        maintenance.lift(me(), maintenance_id)
    queue.wake(host.name)
    flash(_("The maintenance is over; its GPUs can be booked again."))
    return go(url_for("maintenance.index", host_name=host.name))


Asked = tuple[Sequence[Gpu], Window]


def _gpus(host: Host) -> list[Gpu]:
    return [gpu for gpu, _host in inventory.gpus(host.id)]


def _form(host: Host, **values: Any) -> BlockForm:
    form = BlockForm(**values)
    form.gpu.choices = [(str(gpu.id), f"{gpu_label(gpu)} {gpu.model}") for gpu in _gpus(host)]
    return form


def _fresh(host: Host) -> BlockForm:
    """All GPUs, from now on: what somebody wants who opens the case."""
    today = local_times.date_text(clock.now(), times.viewer_zone())
    everything = [str(gpu.id) for gpu in _gpus(host)]
    return _form(host, formdata=None, gpu=everything, start_date=today, end_date=today)


def _read(host: Host, sent: MultiDict[str, str]) -> tuple[BlockForm, Asked | None]:
    """What was typed; None where it cannot be meant, and then each field says why."""
    form = _form(host, formdata=sent)
    if not form.validate():
        return form, None
    zone = times.viewer_zone()
    try:
        start = None
        if form.start_time.data:
            day = local_times.parse_date(form.start_date.data, "start_date")
            start = local_times.moment(
                day, local_times.parse_time(form.start_time.data, "start_time"), zone, "start_time"
            )
        day = local_times.parse_date(form.end_date.data, "end_date")
        end = local_times.moment(day, local_times.parse_time(form.end_time.data, "end_time"), zone, "end_time")
        window = snapped(start, end, clock.now(), slot())
    except InvalidInput as error:
        form.refuse(error)
        return form, None
    chosen = [gpu for gpu in _gpus(host) if str(gpu.id) in (form.gpu.data or [])]
    if not chosen:
        form.refuse(InvalidInput(_("Choose at least one GPU."), field="gpus"))
        return form, None
    return form, (chosen, window)


def _page(host: Host, form: BlockForm, asked: Asked | None = None, status: int = 200) -> Response:
    found = maintenance.plan(*asked) if asked else []
    return render(
        "hosts/maintenance.html",
        status=status,
        host=host,
        form=form,
        errors_found=status == 422,
        asked=asked,
        changes=[(change, _fate(change)) for change in found],
        agreed=maintenance.fingerprint(found),
        planned=maintenance.to_come(host),
        gpu_list=gpu_list,
        count=ngettext("%(num)s booking is in the way:", "%(num)s bookings are in the way:", len(found)),
    )


def _fate(change: maintenance.Change) -> str:
    text = str(FATES[change.fate])
    values = {"end": times.moment_text(change.ends_at)} if change.ends_at else {}
    if change.gpus:
        values |= {"gpus": gpu_list(change.gpus), "host": change.gpus[0].host.name}
    return text % values
