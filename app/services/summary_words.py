"""The summary of a month in words, in the reader's language."""

from __future__ import annotations

from datetime import date
from typing import Any

from babel.dates import format_date
from flask_babel import get_locale

from app.language import gettext as _
from app.services.reports.numbers import percent


def title(details: dict[str, Any]) -> str:
    """`October 2026: 120 GPU-hours booked, 64 busy`."""
    month = format_date(date.fromisoformat(details["first"]), _("LLLL yyyy"), locale=get_locale() or "en")
    values = {"month": month, "booked": _hours(details["reserved"]), "busy": _hours(details["busy"])}
    if "team" in details:
        team = _one_line(details["team"])
        return _("%(month)s, team %(team)s: %(booked)s GPU-hours booked, %(busy)s busy", team=team, **values)
    if "people" in details:
        return _("%(month)s, everybody: %(booked)s GPU-hours booked, %(busy)s busy", **values)
    return _("%(month)s: you booked %(booked)s GPU-hours, %(busy)s were busy", **values)


def lines(details: dict[str, Any], url: str) -> list[str]:
    """What stands below it, with a link to the report; `url`: Berth's own."""
    parts = {name: _hours(details[name]) for name in ("attached", "busy", "idle", "not_attached", "no_data", "wasted")}
    shares = {f"{name}_share": percent(details[name], details["reserved"]) or 0 for name in ("attached", "busy")}
    found = [
        _("Attached %(attached)s (%(attached_share)s %%), busy %(busy)s (%(busy_share)s %%).", **parts, **shares),
        _("Wasted %(wasted)s: %(not_attached)s not attached and %(idle)s idle.", **parts),
    ]
    if details.get("not_given", 0) >= 180:
        found.append(_("Not given %(hours)s, which costs nothing.", hours=_hours(details["not_given"])))
    if details["no_data"] >= 180:
        found.append(_("Nobody looked for %(no_data)s; that is neither busy nor idle.", **parts))
    if details["kwh"]:  # else no card gives its power
        found.append(_("Energy: %(kwh)s kWh.", kwh=f"{details['kwh']:.1f}"))
    if details.get("places"):
        found.append(_waited(details))
    if details.get("most"):
        most = _(", ").join(
            _("%(name)s %(hours)s", name=_one_line(name), hours=_hours(wasted)) for name, wasted in details["most"]
        )
        found.append(_("Who wasted most: %(most)s", most=most))
    of = f"team-{details['account']}" if "team" in details else "all" if "people" in details else "me"
    address = f"{url}/reports?of={of}&period=custom&from={details['first']}&to={details['last']}"
    return [*found, _("The whole report: %(url)s", url=address)]


def _waited(details: dict[str, Any]) -> str:
    values = {name: _hours(details[name]) for name in ("median", "longest")} | {"served": details["served"]}
    if details["places"] == 1:
        return _("On the waiting list: one place, %(served)s booked; it waited %(longest)s h.", **values)
    return _(
        "On the waiting list: %(places)s places, %(served)s booked; half waited %(median)s h or less, the longest "
        "%(longest)s h.",
        places=details["places"],
        **values,
    )


def _one_line(name: str) -> str:
    return "".join(character if character.isprintable() else " " for character in name)


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f}".removesuffix(".0")
