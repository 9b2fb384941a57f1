"""Notices in words: in the person's language, on the person's clock, with links back to Berth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo

from babel import Locale, UnknownLocaleError
from flask_babel import force_locale

from app.language import gettext as _
from app.language import ngettext
from app.models import Event, Notice, User
from app.services import summary_words
from app.services.noshows import NO_SHOW
from app.services.notice_bookings import CHANGED, Place, gpus_on, many, of_booking, of_series, of_wait
from app.services.windows import hours_text

NAMED = 30  # notices in one message that are written out


@dataclass(frozen=True)
class Message:
    """What goes out: of several notices one after the other."""

    title: str
    text: str


def message(user: User, found: Sequence[Notice], url: str, lab: ZoneInfo) -> Message:
    """All these notices of one person as one message."""
    place = Place.of(user, url, lab)
    with force_locale(language(user.locale)):
        parts = [(_title(notice, place), _lines(notice, place)) for notice in found[:NAMED]]
        title = parts[0][0]
        if len(parts) > 1:
            title = ngettext("%(num)s message from Berth", "%(num)s messages from Berth", len(found))
        blocks = ["\n".join([head, *lines] if len(parts) > 1 else lines or [head]) for head, lines in parts]
        if more := len(found[NAMED:]):
            blocks.append(_("and %(number)s more", number=more))
        foot = _("What you are told: %(url)s", url=f"{place.url}/settings/notices")
    return Message(clean(title), "\n\n".join([*blocks, "-- \n" + foot]) + "\n")


def language(name: str) -> str:
    """The person's language, English where they chose none that there is."""
    try:
        return str(Locale.parse(name)) if name else "en"
    except (ValueError, UnknownLocaleError):
        return "en"


def clean(text: str) -> str:
    """One line without control characters, whatever the names in it hold."""
    return "".join(character if character.isprintable() else " " for character in text)[:200]


def _title(notice: Notice, place: Place) -> str:
    return clean(_TITLES[Event(notice.event)](notice.details, place))


def _ends_soon(details: dict[str, Any], place: Place) -> str:
    return _("Ends soon: %(what)s, at %(end)s", what=gpus_on(details), end=place.when(details["ends_at"]))


def _moved(details: dict[str, Any], place: Place) -> str:
    if details["action"].startswith("series."):
        return _series_moved(details, place)
    what = gpus_on(details)
    if details["action"] == "booking.cancelled":
        return _("Cancelled: %(what)s, %(start)s", what=what, start=place.when(details["starts_at"]))
    if details["action"] in _CHANGED:
        return _changed(details, what, place)
    if details.get("began"):
        return _("Now starts %(start)s: %(what)s", what=what, start=place.when(details["starts_at"]))
    return _("Now ends %(end)s: %(what)s", what=what, end=place.when(details["ends_at"]))


_CHANGED = {"booking.gpu_replaced", "booking.resized", "booking.noted", CHANGED, NO_SHOW}


def _changed(details: dict[str, Any], what: str, place: Place) -> str:
    """What changed is not its time, or not that alone."""
    start = place.when(details["starts_at"])
    others = _("Other GPUs: %(what)s, %(start)s", what=what, start=start)
    more = _("More or fewer GPUs: now %(what)s, %(start)s", what=what, start=start)
    return {
        "booking.gpu_replaced": _("Another GPU was given: %(what)s", what=what),
        "booking.resized": others if "instead_of" in details else more,
        "booking.noted": _("Another purpose: %(what)s, %(start)s", what=what, start=start),
        CHANGED: _("Changed: %(what)s, %(start)s", what=what, start=start),
        NO_SHOW: _("Given up, since no machine took it: %(what)s", what=what),
    }[details["action"]]


def _series_moved(details: dict[str, Any], place: Place) -> str:
    what, start = many(details), place.when(details["starts_at"])
    if details["action"] == "series.cancelled":
        return _("Cancelled: %(what)s, from %(start)s", what=what, start=start)
    return _("Moved: %(what)s, from %(start)s", what=what, start=start)


def _made(details: dict[str, Any], place: Place) -> str:
    if "series" in details:
        return _("Booked: %(what)s, first %(start)s", what=many(details), start=place.when(details["starts_at"]))
    return _("Booked: %(what)s, from %(start)s", what=gpus_on(details), start=place.when(details["starts_at"]))


def _offered(details: dict[str, Any], place: Place) -> str:
    if details["action"] == "wait.expired":
        if details["offered"]:
            return _("An offer of the waiting list was not taken")
        return _("The waiting list had nothing for you")
    what, start = gpus_on(details), place.when(details["starts_at"])
    if details["action"] == "wait.granted":
        return _("Booked for you: %(what)s, from %(start)s", what=what, start=start)
    return _("Offered to you: %(what)s, from %(start)s", what=what, start=start)


def _idle(details: dict[str, Any], place: Place) -> str:
    if details["action"] != "booking.idle_warned":
        if details.get("absent"):
            return _("Given back, since nobody used it: %(what)s", what=gpus_on(details))
        return _("Given back, since nothing was done: %(what)s", what=gpus_on(details))
    if details.get("absent"):
        due_at = place.when(details["due_at"])
        return _("Not used yet: %(what)s, given back at %(time)s", what=gpus_on(details), time=due_at)
    times = {"since": place.when(details["since"]), "time": place.when(details["due_at"])}
    return _("Nothing done since %(since)s: %(what)s, given back at %(time)s", what=gpus_on(details), **times)


def _approved(details: dict[str, Any], _place: Place) -> str:
    if details["action"] == "user.approved":
        return _("Your account in Berth is approved")
    if details["action"] == "user.password_set":
        return _("An admin set a new password for your account in Berth")
    return _("Your request for an account in Berth was refused")


def _alarm(details: dict[str, Any], _place: Place) -> str:
    words = {
        "gpu.intruder": _("A GPU of %(host)s was used without a booking", host=details.get("host", "?")),
        "gpu.used_unbooked": _("A GPU of %(host)s is in use without a booking", host=details.get("host", "?")),
        "gpu.unreadable": _(
            "GPU %(gpu)s of %(host)s does not answer", gpu=details.get("gpu", "?"), host=details.get("host", "?")
        ),
        "instance.force_stopped": _("A machine on %(host)s was stopped by force", host=details.get("host", "?")),
        "host.pool_full": _("A storage pool of %(host)s is nearly full", host=details.get("host", "?")),
        "job.refused": _("A forged job was refused (%(target)s)", target=details.get("target", "?")),
        "host.silent": _("%(host)s says nothing", host=details.get("host", "?")),
    }
    return words.get(details["action"], details["action"])


def _low(details: dict[str, Any]) -> str:
    hours = hours_text(details["left"])
    if details.get("team"):
        return _("%(hours)s GPU-hours of %(team)s are left", hours=hours, team=details["team"])
    if not details["renews_at"]:
        return _("%(hours)s GPU-hours are left", hours=hours)
    return _("%(hours)s GPU-hours are left this month", hours=hours)


def _disk_full(details: dict[str, Any]) -> str:
    return _(
        "The disk of %(name)s on %(host)s is nearly full: %(used)s of %(size)s GiB",
        name=details["machine"],
        host=details["host"],
        used=f"{details['disk'] / (1 << 30):.1f}",
        size=details["size"],
    )


def _with_room(details: dict[str, Any], place: Place) -> list[str]:
    """What a full disk means, and how there is room again."""
    url = f"{place.url}/machines/{details['machine']}"
    return [
        _(
            "Once it is full, programs in it cannot write, no snapshot can be made, and it may not start again after a "
            "stop. Other machines are not affected."
        ),
        _("Remove files that you do not need, or give it a larger disk: %(url)s", url=url),
    ]


_TITLES: dict[Event, Callable[[dict[str, Any], Place], str]] = {
    Event.MADE: _made,
    Event.STARTS: lambda d, p: _("Starts now: %(what)s, until %(end)s", what=gpus_on(d), end=p.when(d["ends_at"])),
    Event.ENDS_SOON: _ends_soon,
    Event.ENDED: lambda d, _p: _("Ended: %(what)s", what=gpus_on(d)),
    Event.MOVED: _moved,
    Event.OFFERED: _offered,
    Event.IDLE: _idle,
    Event.APPROVED: _approved,
    Event.QUOTA_LOW: lambda d, _p: _low(d),
    Event.DISK_FULL: lambda d, _p: _disk_full(d),
    Event.WAITING: lambda d, _p: _("%(name)s waits for approval", name=d["target"].partition(":")[2]),
    Event.QUARANTINE: lambda d, _p: _(
        "GPU %(gpu)s of %(host)s is in quarantine", gpu=d.get("gpu", "?"), host=d.get("host", "?")
    ),
    Event.ALARM: _alarm,
    Event.SUMMARY: lambda d, _p: summary_words.title(d),
    Event.TEST: lambda _d, _p: _("A test from Berth"),
}


_LINES: dict[Event, Callable[[dict[str, Any], Place], list[str]]] = {
    Event.DISK_FULL: _with_room,
    Event.SUMMARY: lambda d, p: summary_words.lines(d, p.url),
    Event.WAITING: lambda _d, p: [_("Decide: %(url)s", url=f"{p.url}/people")],
    Event.TEST: lambda _d, _p: [_("This way works: Berth reaches you here.")],
}


def _lines(notice: Notice, place: Place) -> list[str]:
    details, event = notice.details, Event(notice.event)
    if event == Event.OFFERED or "booking" in details or "series" in details:
        if event == Event.OFFERED:
            found = of_wait(details, place)
        else:
            found = of_booking(event, details, place) if "booking" in details else of_series(event, details, place)
        return [clean(line) for line in found]
    if event in _LINES:
        return _LINES[event](details, place)
    if event == Event.APPROVED:
        words = [clean(details["reason"])] if details.get("reason") else []
        if details["action"] == "user.password_set":
            words = [_("If you did not ask for it, tell them.")]
        return [*words, _("Sign in: %(url)s", url=f"{place.url}/login")]
    if event == Event.QUOTA_LOW:
        renews = [_("New hours come %(when)s.", when=place.when(details["renews_at"]))] if details["renews_at"] else []
        return [*renews, _("Where they went: %(url)s", url=f"{place.url}/quota")]
    why = [clean(str(details[name])) for name in ("reason", "why", "instance", "name", "since") if details.get(name)]
    return [*why, _("Look: %(url)s", url=f"{place.url}/hosts")]
