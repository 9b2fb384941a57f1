"""The lab's rules, for admins to change."""

from __future__ import annotations

from flask import Blueprint, Response, flash, request, url_for
from flask_babel import LazyString
from flask_babel import gettext as _
from flask_babel import lazy_gettext as _l

from app.errors import InvalidInput
from app.extensions import transaction
from app.services import policy
from app.web.render import go, render
from app.web.security import admin_required
from app.web.sessions import me

bp = Blueprint("policy", __name__, url_prefix="/rules")

FIELDS: dict[str, tuple[LazyString, LazyString]] = {  # field → label, unit
    "horizon_days": (_l("How far ahead a booking may end"), _l("days")),
    "max_hours": (_l("How long one booking may be"), _l("hours")),
    "max_gpus": (_l("How many GPUs one booking may take"), _l("GPUs")),
    "default_hours": (_l("Hours per month offered when approving"), _l("hours")),
    "max_instances": (_l("Machines per person"), _l("machines")),
    "max_cpus": (_l("CPUs per machine"), _l("CPUs")),
    "max_memory_gib": (_l("Memory per machine"), _l("GiB")),
    "max_disk_gib": (_l("Disk per machine"), _l("GiB")),
    "max_snapshots": (_l("Snapshots per machine"), _l("snapshots")),
    "delete_days": (_l("How long a deleted machine can be had back"), _l("days")),
    "offer_minutes": (_l("How long the waiting list holds an offer for somebody"), _l("minutes")),
    "grace_seconds": (_l("Seconds between asking a program to end and ending it"), _l("seconds")),
    "minute_days": (_l("What GPUs did is kept by the minute"), _l("days")),
    "hour_days": (_l("What GPUs did is kept by the hour"), _l("days")),
}
SWITCHES: dict[str, tuple[LazyString, LazyString | str]] = {  # field → label, help
    "self_service": (_l("People may create their own machines"), ""),
    "force_stop": (
        _l("Stop a machine that does not let go of a GPU"),
        _l("Otherwise the GPU goes into quarantine until it is seen to be free, and the machine keeps running."),
    ),
}
NAMES = tuple(FIELDS)
GROUPS: tuple[tuple[LazyString, LazyString | str, tuple[str, ...], str], ...] = (  # heading, note, fields, switch
    (_l("Bookings"), "", (*NAMES[:4], "offer_minutes"), ""),
    (_l("Machines"), "", NAMES[4:10], "self_service"),
    (_l("Taking a GPU back"), _l("These hold at once, for bookings that run now too."), NAMES[11:12], "force_stop"),
    (
        _l("What GPUs did"),
        _l("By the day it is kept for ever. What is older than this goes within a day, and does not come back."),
        NAMES[12:],
        "",
    ),
)


@bp.get("")
@admin_required
def index() -> Response:
    """The rules as they are."""
    rules = policy.current()
    values = {name: str(getattr(rules, name)) for name in FIELDS}
    return _page(values, {name: getattr(rules, name) for name in SWITCHES})


@bp.post("")
@admin_required
def change() -> Response:
    """Set new rules; they hold for what is booked from now on."""
    values = {name: request.form.get(name, "").strip() for name in FIELDS}
    switches = {name: name in request.form for name in SWITCHES}
    try:
        limits = {name: _whole_number(name, text) for name, text in values.items()}
        with transaction():
            policy.change(me(), self_service=switches["self_service"], force_stop=switches["force_stop"], **limits)
    except InvalidInput as error:
        return _page(values, switches, problem=error)
    flash(_("Rules saved. They hold for what is booked from now on."))
    return go(url_for("policy.index"))


def _whole_number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        low, high = policy.LIMITS[name]
        raise InvalidInput(_("This must be a whole number from %(low)s to %(high)s.", low=low, high=high), field=name)
    return int(text)


def _page(values: dict[str, str], on: dict[str, bool], problem: InvalidInput | None = None) -> Response:
    return render(
        "policy/index.html",
        status=422 if problem else 200,
        errors_found=problem is not None,
        values=values,
        on=on,
        problem=problem,
        fields=FIELDS,
        switches=SWITCHES,
        groups=GROUPS,
        limits=policy.LIMITS,
    )
