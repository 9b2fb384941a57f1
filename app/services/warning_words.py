"""A warning in words for the machine: in English, and in its owner's language below where they chose one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from zoneinfo import ZoneInfo

from babel import Locale, UnknownLocaleError
from flask_babel import force_locale, get_timezone

from app import clock
from app.language import gettext as _
from app.language import ngettext
from app.services import further_words
from app.services.further import Further
from app.services.idle.warned import ForMachine
from app.services.warnings import Claim, Due, Held
from app.services.words import gpu_numbers

NAMES = 5  # programs that are named


def message(
    warning: Due, held: Held | None, claims: Iterable[Claim], further: Further | None = None
) -> tuple[str, str]:
    """Title and text. `held`: what holds the GPUs, None if nobody knows; `claims`: who has what on the host;
    `further`: whether it can go on, if known."""
    ends = {claim.booking_id: claim.ends_at for claim in claims}
    title, lines = "", list[str]()
    for language in languages(warning):
        with force_locale(language):
            said = [*_lines(warning, held, ends), _what_to_do(warning, further, language)]
            lines += ["", _title(warning), *said] if title else said
            title = title or _title(warning)
    return title, "\n".join(lines)


def languages(warning: Due) -> list[str]:
    """In which it is said: English, and its owner's where they chose another."""
    other = _other_language(warning.locale)
    return ["en", other] if other is not None else ["en"]


def idle(found: ForMachine) -> tuple[str, str]:
    """Title and text of the warning that the rest of a booking whose GPUs do nothing is given back."""
    with force_locale("en"):
        title, *lines = _idle(found)
    if (language := _other_language(found.locale)) is not None:
        with force_locale(language):
            lines += ["", *_idle(found)]
    return title, "\n".join(lines)


def _idle(found: ForMachine) -> list[str]:
    due_at = _time(found, found.due_at)
    said = (
        ngettext(
            "Your %(num)s GPU was not used yet; at %(time)s the rest of the time is given back.",
            "Your %(num)s GPUs were not used yet; at %(time)s the rest of the time is given back.",
            found.gpus,
            time=due_at,
        )
        if found.absent
        else ngettext(
            "Your %(num)s GPU did nothing since %(since)s; at %(time)s the rest of the time is given back.",
            "Your %(num)s GPUs did nothing since %(since)s; at %(time)s the rest of the time is given back.",
            found.gpus,
            since=_time(found, found.since),
            time=due_at,
        )
    )
    return [said, _("To keep it, use them, or open booking %(id)s in Berth.", id=found.booking_id)]


def _title(warning: Due) -> str:
    return ngettext(
        "Your %(num)s GPU on %(host)s goes at %(time)s (%(away)s)",
        "Your %(num)s GPUs on %(host)s go at %(time)s (%(away)s)",
        len(warning.claims),
        host=warning.host,
        time=_time(warning, warning.ends_at),
        away=_away(warning),
    )


def _lines(warning: Due, held: Held | None, ends: dict[int, datetime]) -> Iterator[str]:
    yield _what_happens(warning)
    found = [entry for entries in (held or {}).values() for entry in entries]
    if found:
        yield _("Running there now: %(programs)s.", programs=_programs(found))
    for other in sorted({number for entry in found for number in entry["also"]}):
        if other in ends and ends[other] > warning.ends_at:
            yield _(
                "%(programs)s also holds a GPU of booking %(id)s, which goes on until %(time)s, and is ended all the "
                "same. Save its work, or let both bookings end together.",
                programs=_programs(entry for entry in found if other in entry["also"]),
                id=other,
                time=_time(warning, ends[other]),
            )


def _what_to_do(warning: Due, further: Further | None, language: str) -> str:
    number = warning.booking_id
    if further is None:
        return _("To extend it or to end it now, open booking %(id)s in Berth.", id=number)
    if further.rest:
        return further_words.goes_on(further.rest)
    if further.until is not None:
        until = _time(warning, further.until)
        return _("To extend it (to %(until)s) or to end it now, open booking %(id)s in Berth.", until=until, id=number)
    at = _time(warning, further.at) if further.at else ""
    return further_words.why_not(further.why, at, further.text.get(language, ""))


def _what_happens(warning: Due) -> str:
    grace = warning.grace
    values = {
        "gpus": gpu_numbers(claim.gpu.minor for claim in warning.claims),
        "time": _time(warning, warning.ends_at),
        "seconds": grace.seconds,
    }
    if grace.before:
        return _(
            "Somebody has booked right after you: programs that run on %(gpus)s are asked to end (SIGTERM) at "
            "%(asked)s and killed (SIGKILL) at %(time)s.",
            asked=_time(warning, grace.asked_at(warning.ends_at)),
            **values,
        )
    return _(
        "At %(time)s, %(gpus)s will be taken away. Programs that still run there are asked to end (SIGTERM) and killed "
        "%(seconds)s s later (SIGKILL).",
        **values,
    )


def _programs(entries: Iterable[dict[str, object]]) -> str:
    """`python (3), jupyter`: by name, with how many processes of it there are."""
    counted = Counter({entry["pid"]: str(entry["name"]) for entry in entries}.values())
    named = [f"{name} ({count})" if count > 1 else name for name, count in counted.most_common(NAMES)]
    return _(", ").join([*named, "…"] if len(counted) > NAMES else named)


def _time(warning: Due | ForMachine, moment: datetime) -> str:
    """On the owner's clock, with its zone: the machine's may be another."""
    zone = _zone(warning.timezone)
    local = moment.astimezone(zone)
    return f"{local:%H:%M:%S} {zone}" if local.second else f"{local:%H:%M} {zone}"


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name or str(get_timezone()))
    except (ValueError, OSError, KeyError):  # no such zone here, or any more
        return ZoneInfo("UTC")


def _away(warning: Due) -> str:
    seconds = max(int((warning.ends_at - clock.now()).total_seconds()), 0)
    if seconds < 45:
        return _("in %(seconds)s s", seconds=seconds)
    return _("in %(minutes)s min", minutes=round(seconds / 60))


def _other_language(name: str) -> str | None:
    try:
        found = Locale.parse(name) if name else None
    except (ValueError, UnknownLocaleError):
        return None
    return None if found is None or found.language == "en" else name
