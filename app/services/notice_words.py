"""Notices in words: in the person's language, on the person's clock, with links back to Berth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from babel import Locale, UnknownLocaleError
from flask_babel import force_locale, ngettext
from flask_babel import gettext as _

from app.models import Event, Notice, User
from app.services.windows import hours_text
from app.services.words import on_clocks

NAMED = 30  # notices in one message that are written out


@dataclass(frozen=True)
class Place:
    """Where the reader and the lab are: its address as people reach it, and the zones of both."""

    url: str
    lab: ZoneInfo
    zone: ZoneInfo

    @classmethod
    def of(cls, user: User, url: str, lab: ZoneInfo) -> Place:
        """As this person has chosen."""
        try:
            return cls(url, lab, ZoneInfo(user.timezone) if user.timezone else lab)
        except (ValueError, OSError, KeyError):  # no such zone here, or any more
            return cls(url, lab, lab)

    def when(self, iso: str) -> str:
        """A moment on the reader's clock, with the lab's beside it where that reads otherwise."""
        return on_clocks(datetime.fromisoformat(iso), _("EEE d MMM HH:mm"), self.zone, self.lab)


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


def _title(notice: Notice, place: Place) -> str:
    return clean(_TITLES[Event(notice.event)](notice.details, place))


def clean(text: str) -> str:
    """One line without control characters, whatever the names in it hold."""
    return "".join(character if character.isprintable() else " " for character in text)[:200]


def _what(details: dict[str, Any]) -> str:
    return ngettext("%(num)s GPU on %(host)s", "%(num)s GPUs on %(host)s", details["gpus"], host=details["host"])


def _ends_soon(details: dict[str, Any], place: Place) -> str:
    return _("Ends soon: %(what)s, at %(end)s", what=_what(details), end=place.when(details["ends_at"]))


def _moved(details: dict[str, Any], place: Place) -> str:
    what = _what(details)
    if details["action"] == "booking.cancelled":
        return _("Cancelled: %(what)s, %(start)s", what=what, start=place.when(details["starts_at"]))
    if details["action"] == "booking.gpu_replaced":
        return _("Another GPU was given: %(what)s", what=what)
    return _("Now ends %(end)s: %(what)s", what=what, end=place.when(details["ends_at"]))


def _idle(details: dict[str, Any], place: Place) -> str:
    if details["action"] != "booking.idle_warned":
        return _("Given back, since nothing was done: %(what)s", what=_what(details))
    times = {"since": place.when(details["since"]), "time": place.when(details["due_at"])}
    return _("Nothing done since %(since)s: %(what)s, given back at %(time)s", what=_what(details), **times)


def _approved(details: dict[str, Any], _place: Place) -> str:
    if details["action"] == "user.approved":
        return _("Your account in Berth is approved")
    return _("Your request for an account in Berth was refused")


def _alarm(details: dict[str, Any], _place: Place) -> str:
    words = {
        "gpu.intruder": _("A GPU of %(host)s was used without a booking", host=details.get("host", "?")),
        "instance.force_stopped": _("A machine on %(host)s was stopped by force", host=details.get("host", "?")),
        "job.refused": _("A forged job was refused (%(target)s)", target=details.get("target", "?")),
        "host.silent": _("%(host)s says nothing", host=details.get("host", "?")),
    }
    return words.get(details["action"], details["action"])


_TITLES: dict[Event, Callable[[dict[str, Any], Place], str]] = {
    Event.MADE: lambda d, p: _("Booked: %(what)s, from %(start)s", what=_what(d), start=p.when(d["starts_at"])),
    Event.STARTS: lambda d, p: _("Starts now: %(what)s, until %(end)s", what=_what(d), end=p.when(d["ends_at"])),
    Event.ENDS_SOON: _ends_soon,
    Event.ENDED: lambda d, _p: _("Ended: %(what)s", what=_what(d)),
    Event.MOVED: _moved,
    Event.IDLE: _idle,
    Event.APPROVED: _approved,
    Event.QUOTA_LOW: lambda d, _p: _("%(hours)s GPU-hours are left this month", hours=hours_text(d["left"])),
    Event.WAITING: lambda d, _p: _("%(name)s waits for approval", name=d["target"].partition(":")[2]),
    Event.QUARANTINE: lambda d, _p: _(
        "GPU %(gpu)s of %(host)s is in quarantine", gpu=d.get("gpu", "?"), host=d.get("host", "?")
    ),
    Event.ALARM: _alarm,
    Event.TEST: lambda _d, _p: _("A test from Berth"),
}


def _lines(notice: Notice, place: Place) -> list[str]:
    details, event = notice.details, Event(notice.event)
    if "booking" in details:
        return [clean(line) for line in _of_booking(event, details, place)]
    if event == Event.TEST:
        return [_("This way works: Berth reaches you here.")]
    if event == Event.APPROVED:
        reason = [clean(details["reason"])] if details.get("reason") else []
        return [*reason, _("Sign in: %(url)s", url=f"{place.url}/login")]
    if event == Event.QUOTA_LOW:
        renews = [_("New hours come %(when)s.", when=place.when(details["renews_at"]))] if details["renews_at"] else []
        return [*renews, _("Where they went: %(url)s", url=f"{place.url}/quota")]
    if event == Event.WAITING:
        return [_("Decide: %(url)s", url=f"{place.url}/people")]
    why = [clean(str(details[name])) for name in ("reason", "why", "instance", "since") if details.get(name)]
    return [*why, _("Look: %(url)s", url=f"{place.url}/hosts")]


def _of_booking(event: Event, details: dict[str, Any], place: Place) -> list[str]:
    span = _(
        "%(what)s, %(start)s to %(end)s",
        what=_what(details),
        start=place.when(details["starts_at"]),
        end=place.when(details["ends_at"]),
    )
    page = f"{place.url}/bookings/{details['booking']}"
    lines = [span]
    if details.get("before"):
        lines.append(_("Before, it ended %(end)s.", end=place.when(details["before"])))
    if event == Event.MOVED:
        lines.append(_("Changed by %(name)s.", name=details["by"]))
    if details.get("reason"):
        lines.append(str(details["reason"]))
    if details.get("action") == "booking.idle_warned":
        return [*lines, *_of_keeping(details, place, page)]
    if event == Event.ENDS_SOON:
        lines.append(_("Save your work; what still runs on the GPUs at the end is ended."))
        return [*lines, _("Extend it or end it now: %(url)s", url=f"{page}/change")]
    return [*lines, _("Booking %(id)s: %(url)s", id=details["booking"], url=page)]


def _of_keeping(details: dict[str, Any], place: Place, page: str) -> list[str]:
    since, due_at = place.when(details["since"]), place.when(details["due_at"])
    done = ngettext(
        "Your %(num)s GPU did nothing since %(since)s; at %(time)s the rest of the time is given back.",
        "Your %(num)s GPUs did nothing since %(since)s; at %(time)s the rest of the time is given back.",
        details["gpus"],
        since=since,
        time=due_at,
    )
    if not details["keeps"]:
        return [done, _("To keep them, use them: you cannot say so any more for this booking. %(url)s", url=page)]
    keep = ngettext(
        "Keep them for %(minutes)s minutes (%(num)s more time): %(url)s",
        "Keep them for %(minutes)s minutes (%(num)s more times): %(url)s",
        details["keeps"],
        minutes=details["minutes"],
        url=f"{page}#idle",
    )
    return [done, keep]
