"""What every page carries: where one can go, who one is, and whether any of this is real."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from flask import Flask, current_app, g, request, url_for
from sqlalchemy import func, select

from app import clock
from app.extensions import db, lab_zone
from app.language import gettext as _
from app.language import ngettext
from app.models import Host, User, UserState
from app.services import alarms
from app.web import locale, times
from app.web.machine_words import silent_after
from app.web.sessions import viewer

KEYS = {"bookings.new": "n"}
KEEP_SECONDS = 5.0  # how old the answer to "are there simulated hosts?" may be


@dataclass(frozen=True)
class Link:
    """One entry of the navigation."""

    text: str
    url: str
    current: bool
    key: str = ""  # that follows it, where there is one


def init_app(app: Flask) -> None:
    """Put the navigation and its neighbours into the context of every template."""
    app.context_processor(_context)


def _context() -> dict[str, Any]:
    bare = g.get("bare", False)  # an error page for when the database is away
    person = None if bare else viewer()
    return {
        "me": person,
        "bare": bare,
        "has_page": current_app.view_functions.__contains__,
        "here": request.full_path.rstrip("?") if request.method == "GET" else "/",
        "nav_links": _links(person) if person else [],
        "simulated": not bare and _simulated(),
        "languages": locale.LANGUAGES,
        "html_lang": locale.html_lang(),
        "lab_zone_name": str(lab_zone()),
        "zone_name": str(times.viewer_zone()),
        "now": clock.now(),
    }


def _links(person: User) -> list[Link]:
    entries = [
        ("home.index", _("Home")),
        ("calendar.index", _("Calendar")),
        ("bookings.new", _("Book")),
        ("bookings.index", _("My bookings")),
        ("machines.index", _("My machine")),
        ("live.index", _("Live GPUs")),
        ("quota.index", _("Quota")),
        ("reports.index", _("Reports") if person.is_admin else _("My usage")),
    ]
    if person.is_admin:
        waiting = _waiting()
        people = _("People (%(count)s waiting)", count=waiting) if waiting else _("People")
        alarming = alarms.count(silent_after())
        hosts = ngettext("Hosts (%(num)s alarm)", "Hosts (%(num)s alarms)", alarming) if alarming else _("Hosts")
        entries += [
            ("people.index", people),
            ("hosts.index", hosts),
            ("templates.index", _("Templates")),
            ("all_machines.index", _("All machines")),
            ("policy.index", _("Rules")),
            ("audit.index", _("Audit")),
        ]
    known = current_app.view_functions
    return [Link(text, url_for(name), _is_current(name), KEYS.get(name, "")) for name, text in entries if name in known]


def _is_current(endpoint: str) -> bool:
    """Exactly this page, or a page below it that has no entry of its own."""
    here = request.endpoint or ""
    if here == endpoint:
        return True
    if here == "bookings.new" or not endpoint.endswith(".index"):
        return False
    return here.partition(".")[0] == endpoint.partition(".")[0]


def _waiting() -> int:
    return db.session.scalar(select(func.count()).where(User.state == UserState.PENDING)) or 0


def _simulated() -> bool:
    """Whether any host is simulated; asked at most once in a few seconds, and once a request in tests."""
    kept: tuple[float, bool] = current_app.extensions.get("berth_simulated", (float("-inf"), False))
    if "simulated" not in g:
        if current_app.testing or time.monotonic() - kept[0] > KEEP_SECONDS:
            found = db.session.scalar(select(Host.id).where(Host.endpoint.like("sim:%")).limit(1)) is not None
            kept = current_app.extensions["berth_simulated"] = (time.monotonic(), found)
        g.simulated = kept[1]
    return bool(g.simulated)
