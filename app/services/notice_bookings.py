"""What notices of bookings, series and the waiting list say below their titles, and where their reader is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from app.language import gettext as _
from app.language import ngettext
from app.models import Event, User
from app.services import further_words
from app.services.noshows import NO_SHOW
from app.services.windows import hours_text
from app.services.words import gpu_numbers, on_clocks

CHANGED = "booking.changed"  # several things at once; no event of the audit is called so


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


def gpus_on(details: dict[str, Any]) -> str:
    """`2 GPUs on lab03`."""
    return ngettext("%(num)s GPU on %(host)s", "%(num)s GPUs on %(host)s", details["gpus"], host=details["host"])


def many(details: dict[str, Any]) -> str:
    """`10 bookings of 2 GPUs`."""
    gpus = ngettext("%(num)s GPU", "%(num)s GPUs", details["gpus"])
    return ngettext("%(num)s booking of %(gpus)s", "%(num)s bookings of %(gpus)s", details["count"], gpus=gpus)


def of_series(event: Event, details: dict[str, Any], place: Place) -> list[str]:
    """Of many bookings at once."""
    first, last = place.when(details["starts_at"]), place.when(details["last_at"])
    lines = [_("%(what)s; the first begins %(first)s, the last %(last)s.", what=many(details), first=first, last=last)]
    if event == Event.MOVED:
        lines.append(_("Changed by %(name)s.", name=details["by"]))
    return [*lines, _("All of them: %(url)s", url=f"{place.url}/bookings/series/{details['series']}")]


def of_wait(details: dict[str, Any], place: Place) -> list[str]:
    """Of what the waiting list did."""
    start, end = place.when(details["starts_at"]), place.when(details["ends_at"])
    own = _("Your places on the waiting list: %(url)s", url=f"{place.url}/waits")
    if details["action"] == "wait.expired":
        wish = ngettext("%(num)s GPU, %(start)s to %(end)s", "%(num)s GPUs, %(start)s to %(end)s", details["gpus"],
                        start=start, end=end)  # fmt: skip
        given_on = [_("It went to the next in line; it costs you nothing.")] if details["offered"] else []
        return [wish, *given_on, own]
    until = place.when(details["decide_by"])
    lines = [_("%(what)s, %(start)s to %(end)s", what=gpus_on(details), start=start, end=end)]
    if details["action"] == "wait.granted":
        page = f"{place.url}/bookings/{details['booking']}"
        free = _("Until %(until)s you can give it back without a charge for doing so late.", until=until)
        return [*lines, free, _("Booking %(id)s: %(url)s", id=details["booking"], url=page)]
    return [
        *lines,
        _("It is held for you until %(until)s; then it goes to the next in line.", until=until),
        _("Take it or decline it: %(url)s", url=f"{place.url}/waits"),
    ]


def of_booking(event: Event, details: dict[str, Any], place: Place) -> list[str]:
    """Of one booking."""
    span = _(
        "%(what)s, %(start)s to %(end)s",
        what=gpus_on(details),
        start=place.when(details["starts_at"]),
        end=place.when(details["ends_at"]),
    )
    page = f"{place.url}/bookings/{details['booking']}"
    lines = [span, *_changes(details, place)]
    if details.get("action") == NO_SHOW:
        left = _("No running machine of yours took its GPUs in time. What was left of its hours is given back.")
        charged = details.get("paid") or details.get("fee")
        lines.append(_("No running machine of yours took its GPUs in time.") if charged else left)
    elif event == Event.MOVED:
        lines.append(_("Changed by %(name)s.", name=details["by"]))
    if details.get("reason"):
        lines.append(str(details["reason"]))
    if details.get("action") == "booking.idle_warned":
        return [*lines, *_of_keeping(details, place, page)]
    if details.get("paid"):  # of an older Berth, which did not say how much
        lines.append(_("By the lab's rules the hours that were left are charged all the same."))
    elif details.get("fee"):
        lines.append(
            _("By the lab's rules %(hours)s GPU-hours of what was left are charged.", hours=hours_text(details["fee"]))
        )
    if event == Event.ENDS_SOON:
        lines.append(_("Save your work; what still runs on the GPUs at the end is ended."))
        return [*lines, *_of_extending(details, place, page)]
    return [*lines, _("Booking %(id)s: %(url)s", id=details["booking"], url=page)]


def _of_rest(rest: dict[str, Any], place: Place) -> str:
    return _(
        "It goes on until %(end)s on %(gpus)s of %(host)s, as booking %(id)s: %(url)s",
        end=place.when(rest["ends_at"]),
        gpus=gpu_numbers(rest["gpus"]),
        host=rest["host"],
        id=rest["booking"],
        url=f"{place.url}/bookings/{rest['booking']}",
    )


def _of_extending(details: dict[str, Any], place: Place, page: str) -> list[str]:
    """Whether it can go on, as it was when the notice was made; one of an older Berth does not say."""
    further, url = details.get("further"), f"{page}/change"
    if further is None:
        return [_("Extend it or end it now: %(url)s", url=url)]
    if rest := further.get("rest"):
        page = f"{place.url}/bookings/{rest['booking']}"
        return [further_words.goes_on(rest), _("Booking %(id)s: %(url)s", id=rest["booking"], url=page)]
    if further.get("until"):
        until = place.when(further["until"])
        return [_("It can be extended to %(until)s. Extend it or end it now: %(url)s", until=until, url=url)]
    at = place.when(further["at"]) if further.get("at") else ""
    reason = further_words.why_not(further["why"], at, next(iter(further["text"].values()), ""))
    return [reason, _("End it now: %(url)s", url=url)]


def _changes(details: dict[str, Any], place: Place) -> list[str]:
    """What it was before, or is now."""
    lines = list[str]()
    if details.get("before"):
        lines.append(_("Before, it ended %(end)s.", end=place.when(details["before"])))
    if rest := details.get("rest"):
        lines.append(_of_rest(rest, place))
    if details.get("began"):
        lines.append(_("Before, it started %(start)s.", start=place.when(details["began"])))
    if "instead_of" in details:
        now, before = gpu_numbers(details["has"]), gpu_numbers(details["instead_of"])
        lines.append(_("It has now: %(gpus)s. Before: %(before)s.", gpus=now, before=before))
    elif "had" in details:
        lines.append(ngettext("Before, it had %(num)s GPU.", "Before, it had %(num)s GPUs.", details["had"]))
    if "note" in details:
        note = str(details["note"])
        lines.append(_("Its purpose: %(note)s", note=note) if note else _("It has no purpose any more."))
    return lines


def _of_keeping(details: dict[str, Any], place: Place, page: str) -> list[str]:
    due_at = place.when(details["due_at"])
    done = ngettext(
        "Your %(num)s GPU did nothing since %(since)s; at %(time)s the rest of the time is given back.",
        "Your %(num)s GPUs did nothing since %(since)s; at %(time)s the rest of the time is given back.",
        details["gpus"],
        since=place.when(details["since"]),
        time=due_at,
    )
    if details.get("absent"):
        done = ngettext(
            "Your %(num)s GPU was not used yet; at %(time)s the rest of the time is given back.",
            "Your %(num)s GPUs were not used yet; at %(time)s the rest of the time is given back.",
            details["gpus"],
            time=due_at,
        )
    if details.get("fee"):
        costs = _("By the lab's rules %(hours)s GPU-hours of it are charged then.", hours=hours_text(details["fee"]))
        done = f"{done} {costs}"
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
