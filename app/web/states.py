"""The words for states, one each, with the role that colours them and the icon that goes before them."""

from __future__ import annotations

from dataclasses import dataclass

from flask import g, url_for
from flask_babel import LazyString
from markupsafe import Markup, escape

from app.language import lazy_gettext as _l


@dataclass(frozen=True)
class State:
    """How a state is shown. `role` is a CSS class: booked, in-use, attention, refused or off."""

    role: str
    icon: str
    word: LazyString


STATES = {
    # bookings
    "waiting": State("booked waiting", "waiting", _l("Waiting for approval")),
    "booked": State("booked", "booked", _l("Booked")),
    "attaching": State("booked", "attaching", _l("Attaching")),
    "in_use": State("in-use", "in-use", _l("In use")),
    "idle": State("attention", "idle", _l("Idle")),
    "ends_soon": State("attention", "ends-soon", _l("Ends soon")),
    "ended": State("off", "ended", _l("Ended")),
    "ended_early": State("off", "ended-early", _l("Ended early")),
    "cancelled": State("off", "cancelled", _l("Cancelled")),
    "no_show": State("attention", "attention", _l("No-show")),
    "refused_booking": State("refused", "refused", _l("Refused")),
    "failed": State("refused", "failed", _l("Failed")),
    # the waiting list
    "in_line": State("booked waiting", "waiting", _l("On the waiting list")),
    "offered": State("attention", "ends-soon", _l("Offered")),
    "expired": State("off", "ended", _l("Nothing came of it")),
    "withdrawn": State("off", "cancelled", _l("Left")),
    # GPUs
    "free": State("in-use", "free", _l("Free")),
    "out_of_service": State("off", "out-of-service", _l("Out of service")),
    "maintenance": State("off", "out-of-service", _l("Maintenance")),
    "quarantine": State("refused", "failed", _l("Quarantined")),
    "not_offered": State("off", "out-of-service", _l("Not offered")),
    "not_attached": State("attention", "attention", _l("Booked, not attached")),
    "unbooked": State("refused", "failed", _l("Used without booking")),
    "no_data": State("attention", "no-data", _l("No data")),
    "slowed": State("attention", "attention", _l("Slowed down")),
    "memory_errors": State("refused", "failed", _l("Memory errors")),
    # machines
    "running": State("in-use", "in-use", _l("Running")),
    "starting": State("booked", "attaching", _l("Starting")),
    "stopping": State("booked", "attaching", _l("Stopping")),
    "creating": State("booked", "attaching", _l("Being created")),
    "stopped": State("off", "stopped", _l("Stopped")),
    "not_reachable": State("attention", "no-data", _l("Not reachable")),
    "disk_full": State("attention", "attention", _l("Disk nearly full")),
    # templates
    "unfit": State("attention", "attention", _l("NVIDIA libraries do not fit")),
    # people
    "pending": State("booked waiting", "waiting", _l("To approve")),
    "active": State("in-use", "ended", _l("Active")),
    "disabled": State("off", "out-of-service", _l("Suspended")),
    "refused": State("refused", "refused", _l("Refused")),
}


def state_of(code: str) -> State:
    """How the state with this code is shown."""
    return STATES[code]


def state_tag(code: str, word: str | LazyString = "") -> Markup:
    """A state as pages show it: icon and word, never a button. Written here and not in a macro, in a tenth of its time:
    some pages have a hundred."""
    found = STATES[code]
    text = escape(word or found.word)
    return Markup(f'<span class="tag {found.role}">{icon_tag(found.icon)} {text}</span>')  # noqa: S704 - text is escaped


def icon_tag(name: str) -> Markup:
    """One of the icons in static/icons.svg."""
    if "sprite" not in g:
        g.sprite = escape(url_for("static", filename="icons.svg"))
    use = f'<use href="{g.sprite}#{name}"/>'
    return Markup(f'<svg class="icon" aria-hidden="true" width="16" height="16">{use}</svg>')  # noqa: S704 - ours
