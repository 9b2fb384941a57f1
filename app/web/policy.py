"""The lab's rules, for admins to change."""

from __future__ import annotations

from flask import Blueprint, Response, flash, request, url_for
from flask_babel import LazyString

from app.errors import InvalidInput
from app.extensions import transaction
from app.language import gettext as _
from app.language import lazy_gettext as _l
from app.models import Charge, Reclaim
from app.services import policy
from app.web.numbers import whole
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
    "idle_minutes": (_l("GPUs that do nothing are idle after"), _l("minutes")),
    "idle_held_minutes": (_l("The same while memory is held (0: they never are)"), _l("minutes")),
    "idle_percent": (_l("A minute is busy when kernels ran for at least"), _l("percent of it")),
    "idle_grace": (_l("How long the owner has to answer"), _l("minutes")),
    "keeps": (_l('How often they may say "Keep" for one booking'), _l("times")),
    "keep_minutes": (_l('How long "Keep" holds'), _l("minutes")),
}
SWITCHES: dict[str, tuple[LazyString, LazyString | str]] = {  # field → label, help
    "self_service": (_l("People may create their own machines"), ""),
    "force_stop": (
        _l("Stop a machine that does not let go of a GPU"),
        _l("Otherwise the GPU goes into quarantine until it is seen to be free, and the machine keeps running."),
    ),
}
Labels = dict[str, tuple[LazyString, LazyString]]
CHOICES: dict[str, tuple[LazyString, Labels]] = {  # field → label; value → label, help
    "reclaim": (
        _l("What becomes of them"),
        {
            Reclaim.OFF: (_l("Off"), _l("Nobody is judged.")),
            Reclaim.TRIAL: (_l("Trial"), _l("Only noted: nobody is told, nothing is taken. Begin with this.")),
            Reclaim.ON: (_l("On"), _l("The owner is told and may keep it; else the rest is given back.")),
        },
    ),
    "charge": (
        _l("What a booking is charged"),
        {
            Charge.RECLAIMED: (
                _l("The time until its end"),
                _l("What is given back costs nothing, but for a class's fee for being late."),
            ),
            Charge.RESERVED: (
                _l("Also what was taken back unused"),
                _l("What was idle or not come to is paid in full; only what people give back costs nothing."),
            ),
            Charge.ATTACHED: (
                _l("Only the time for which GPUs were attached"),
                _l("What nobody comes to costs nothing: let a class end no-shows, or have a fee for being late."),
            ),
        },
    ),
}
NAMES = tuple(FIELDS)
GROUPS: tuple[tuple[LazyString, LazyString | str, tuple[str, ...], str], ...] = (  # heading, note, fields, switch
    (_l("Bookings"), "", (*NAMES[:4], "offer_minutes"), ""),
    (_l("Machines"), "", NAMES[4:10], "self_service"),
    (
        _l("Taking a GPU back"),
        _l("These hold at once, for bookings that run now too."),
        ("grace_seconds",),
        "force_stop",
    ),
    (
        _l("What GPUs did"),
        _l("By the day it is kept for ever. What is older than this goes within a day, and does not come back."),
        ("minute_days", "hour_days"),
        "",
    ),
    (
        _l("GPUs that do nothing"),
        _l(
            "Judged by what GPUs did, not by a keyboard. A booking is given back whole, and only when all its GPUs "
            "were idle for all that time. What was not measured never counts as idle. A class may have its own time."
        ),
        ("idle_minutes", "idle_held_minutes", "idle_percent", "idle_grace", "keeps", "keep_minutes"),
        "reclaim",
    ),
    (_l("Price of a booking"), _l("Holds for bookings that end from now on."), (), "charge"),
)


@bp.get("")
@admin_required
def index() -> Response:
    """The rules as they are."""
    rules = policy.current()
    values = {name: str(getattr(rules, name)) for name in FIELDS}
    chosen = {name: str(getattr(rules, name)) for name in CHOICES}
    return _page(values, {name: getattr(rules, name) for name in SWITCHES}, chosen)


@bp.post("")
@admin_required
def change() -> Response:
    """Set new rules; they hold for what is booked from now on."""
    values = {name: request.form.get(name, "").strip() for name in FIELDS}
    on = {name: name in request.form for name in SWITCHES}
    chosen = {name: request.form[name] for name in CHOICES if name in request.form}
    try:
        limits = {name: _whole_number(name, text) for name, text in values.items()}
        with transaction():
            policy.change(me(), self_service=on["self_service"], force_stop=on["force_stop"], choices=chosen, **limits)
    except InvalidInput as error:
        return _page(values, on, chosen, problem=error)
    flash(_("Rules saved. They hold for what is booked from now on."))
    return go(url_for("policy.index"))


def _whole_number(name: str, text: str) -> int:
    if (number := whole(text)) is None:
        low, high = policy.LIMITS[name]
        raise InvalidInput(_("This must be a whole number from %(low)s to %(high)s.", low=low, high=high), field=name)
    return number


def _page(
    values: dict[str, str], on: dict[str, bool], chosen: dict[str, str], problem: InvalidInput | None = None
) -> Response:
    return render(
        "policy/index.html",
        status=422 if problem else 200,
        errors_found=problem is not None,
        values=values,
        on=on,
        chosen=chosen,
        problem=problem,
        fields=FIELDS,
        switches=SWITCHES,
        choices=CHOICES,
        groups=GROUPS,
        limits=policy.LIMITS,
    )
