"""A report in words: its headings, its sentences, and numbers as people read them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

from babel.dates import format_date as format_day
from flask_babel import format_decimal, get_locale

from app.language import gettext as _
from app.language import lazy_gettext as _l
from app.services.periods import A_DAY, AN_HOUR
from app.services.reports.absences import NO_MACHINE
from app.services.reports.numbers import Numbers, percent
from app.services.reports.periods import Choice, Range, Step
from app.services.reports.report import LITTLE as LITTLE  # noqa: PLC0414 - pages take it from here
from app.services.reports.report import Group, Report, Row, WaitRow
from app.services.reports.waiting import Waits
from app.web.bookings.words import length

NONE = "\N{EN DASH}"
# Words by what they stand for; only the one that is asked for is looked up in a language.
_COMPARED = {"booked": _l("Booked"), "attached": _l("Attached"), "busy": _l("Busy"), "wasted": _l("Wasted")}
_CHOICES = {
    Choice.THIS_MONTH: _l("This month"),
    Choice.LAST_MONTH: _l("Last month"),
    Choice.QUARTER: _l("This quarter"),
    Choice.CUSTOM: _l("Chosen days"),
}
_GROUPS = {
    Group.PERSON: _l("People"),
    Group.TEAM: _l("Teams"),
    Group.HOST: _l("Hosts"),
    Group.GPU: _l("GPUs"),
    Group.MODEL: _l("GPU models"),
    Group.BOOKING: _l("Bookings"),
    Group.DAY: _l("Days"),
    Group.WEEK: _l("Weeks"),
    Group.MONTH: _l("Months"),
}
_LEFT_OPEN = {Group.TEAM: _l("No team"), Group.HOST: _l("Any host"), Group.MODEL: _l("Any model")}
_FORCED = {
    "gpu.process_ended": _l("Programs ended, since they still held a GPU after the end"),
    "instance.force_stopped": _l("Machines stopped by force"),
    "gpu.quarantined": _l("GPUs put into quarantine"),
    "gpu.intruder": _l("Programs ended that used a GPU without a booking"),
    "gpu.used_unbooked": _l("Others that used a GPU without a booking, for admins to look at"),
}
_STEPS = {
    "gpu.process_ended": _l("Program ended after the end"),
    "instance.force_stopped": _l("Machine stopped by force"),
    "gpu.quarantined": _l("GPU put into quarantine"),
    "gpu.intruder": _l("Program without a booking ended"),
    "gpu.used_unbooked": _l("GPU used without a booking"),
}


def hours(seconds: float) -> str:
    """GPU-hours: tenths up to a hundred, whole ones above."""
    return str(format_decimal(_shown(seconds)))


def hours_of_many() -> Callable[[float], str]:
    """The same for a table's cells, in the language of now: where numbers are written as Python writes them, by Python,
    since Babel takes most of the time of a report's page."""
    probe = -1234567.8
    if format_decimal(probe) != f"{probe:,}":
        return hours
    return lambda seconds: f"{_shown(seconds):,}".removesuffix(".0")


def _shown(seconds: float) -> float:
    amount = seconds / 3600
    return round(amount, 1) if abs(amount) < 99.95 else round(amount)


def share(part: float, whole: float) -> str:
    """In per cent, or a dash of nothing."""
    found = percent(part, whole)
    return NONE if found is None else _("%(share)s %%", share=found)


def wasted_shares(least: float) -> Callable[[Numbers], str]:
    """What was wasted of what was booked, for a table's cells; a dash where that is too little to say."""
    pattern = _("%(share)s %%", share="\0")

    def shown(numbers: Numbers) -> str:
        found = percent(numbers.wasted, numbers.reserved) if numbers.reserved >= least else None
        return NONE if found is None else pattern.replace("\0", str(found))

    return shown


def change(found: int | None) -> str:
    """By how many per cent it is more or less than before; a dash where nothing was."""
    if found is None:
        return NONE
    sign = "+" if found > 0 else "\N{MINUS SIGN}" if found < 0 else "±"
    return _("%(sign)s%(share)s %%", sign=sign, share=abs(found))


def beside(report: Report) -> str:
    """How much of a period stands beside how much of the one before, where that is not the whole of both, or not as
    much; clocks that are changed make no difference."""
    one, before = ((span.until - span.start) / A_DAY for span in (report.span, report.before_span))
    days, days_before = (str(format_decimal(round(length_, 1))) for length_ in (one, before))
    if abs(one - before) > AN_HOUR / A_DAY and days != days_before:
        return _("%(days)s days of this period beside %(before)s of the one before.", days=days, before=days_before)
    if report.span.until == report.span.end:
        return ""
    if before < one:
        return _("Of the period before, as many whole hours as have passed of this one.")
    return _("Of the period before, as much as has passed of this one.")


def compared(what: str) -> str:
    """What a row compares."""
    return str(_COMPARED[what])


def choice(one: Choice) -> str:
    """A period's link."""
    return str(_CHOICES[one])


def group(one: Group) -> str:
    """What a table has a row for: its caption."""
    return str(_GROUPS[one])


def day(one: date, pattern: str = "") -> str:
    """A day of the lab's calendar."""
    return format_day(one, pattern or _("d MMM yyyy"), locale=get_locale() or "en")


def period(chosen: Range, kind: Choice) -> str:
    """`October 2026`, or the first and the last day."""
    if kind in {Choice.THIS_MONTH, Choice.LAST_MONTH}:
        return day(chosen.first, _("LLLL yyyy"))
    return _("%(first)s to %(last)s", first=day(chosen.first), last=day(chosen.last))


def step(first: date, of: Step) -> str:
    """A bar's name."""
    if of == Step.MONTH:
        return day(first, _("LLL yyyy"))
    return _("week of %(day)s", day=day(first, _("d MMM"))) if of == Step.WEEK else day(first, _("EEE d MMM"))


def name(row: Row, of: Group) -> str:
    """A row's heading."""
    if row.day is not None and of.step is not None:
        return step(row.day, of.step)
    return row.name or _("No team")


def wished(row: WaitRow, of: Group) -> str:
    """The heading of a row of those who waited: what a wish left open has a word too."""
    return row.name or str(_LEFT_OPEN.get(of, ""))


def waited_by(of: Group) -> str:
    """The heading of those who waited."""
    return {
        Group.TEAM: _("Who waited, by team"),
        Group.HOST: _("Who waited, by host"),
        Group.MODEL: _("Who waited, by GPU model"),
    }.get(of, _("Who waited, by person"))


def waited(one: Waits) -> str:
    """How many waited, and how long."""
    if not one.places:
        return _("Nobody waited.")
    values = {"places": one.places, "median": length(int(one.median)), "longest": length(int(one.longest))}
    if one.places == 1:
        return _("One place on the waiting list, which waited %(longest)s.", **values)
    return _(
        "%(places)s places on the waiting list: half of them waited %(median)s or less, the longest %(longest)s.",
        **values,
    )


def sentence(report: Report, when: str) -> str:
    """The three numbers, each as a share of what it is a part of."""
    one = report.total
    values = {"period": when, "booked": hours(one.reserved), "attached": hours(one.attached), "busy": hours(one.busy)}
    values |= {"of_booked": share(one.attached, one.reserved), "busy_share": share(one.busy, one.reserved)}
    if report.capacity is None:
        return _(
            "%(period)s: booked %(booked)s GPU-hours, attached %(attached)s (%(of_booked)s of booked), "
            "busy %(busy)s (%(busy_share)s).",
            **values,
        )
    return _(
        "%(period)s: booked %(booked)s GPU-hours (%(of_all)s of capacity), attached %(attached)s "
        "(%(of_booked)s of booked), busy %(busy)s (%(busy_share)s).",
        # What is booked on a GPU after it is gone is no part of the capacity.
        of_all=share(one.reserved, max(report.capacity, one.reserved)),
        **values,
    )


def finding(report: Report) -> str:
    """What the chart shows."""
    best = max(report.bars.items(), key=lambda bar: bar[1].busy)
    worst = max(report.bars.items(), key=lambda bar: bar[1].wasted)
    return _(
        "Most was busy %(best)s (%(busy)s GPU-hours), and most was wasted %(worst)s (%(wasted)s).",
        best=step(best[0], report.step),
        busy=hours(best[1].busy),
        worst=step(worst[0], report.step),
        wasted=hours(worst[1].wasted),
    )


def forced(action: str) -> str:
    """A step of an eviction by force."""
    return str(_FORCED[action])


def step_of(action: str) -> str:
    """One of them, by itself."""
    return str(_STEPS[action])


def absent(why: str) -> str:
    """How it was seen that nobody came."""
    return _("No machine took the GPUs") if why == NO_MACHINE else _("The GPUs were never used")
