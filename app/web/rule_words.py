"""The rules of a class in words: labels of its form, its values, and sentences for those who book by it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from babel.dates import get_day_names
from flask_babel import LazyString, get_locale

from app.language import gettext as _
from app.language import lazy_gettext as _l
from app.language import ngettext
from app.services.rules.terms import Rules, listed

Words = dict[str, tuple[LazyString, LazyString | str]]

FIELDS: Words = {  # rule → label, unit
    "max_hours": (_l("How long one booking may be"), _l("hours")),
    "min_minutes": (_l("How long one booking must be"), _l("minutes")),
    "grid_minutes": (_l("Starts and ends lie on a grid of"), _l("minutes")),
    "notice_minutes": (_l("How long before its start it must be made"), _l("minutes")),
    "horizon_days": (_l("How far ahead a booking may end"), _l("days")),
    "max_gpus": (_l("How many GPUs one booking may take"), _l("GPUs")),
    "gpus_at_once": (_l("GPUs at once, in all bookings together"), _l("GPUs")),
    "bookings_ahead": (_l("Bookings that have not started"), _l("bookings")),
    "gap_minutes": (_l("Time between two bookings"), _l("minutes")),
    "far_days": (_l("What counts as far ahead"), _l("days")),
    "far_hours": (_l("How much may be held far ahead"), _l("GPU-hours")),
    "hours_day": (_l("GPU-hours that may be booked a day"), _l("GPU-hours")),
    "hours_week": (_l("GPU-hours that may be booked a week"), _l("GPU-hours")),
    "week_day": (_l("The week begins on"), ""),
    "hours_month": (_l("GPU-hours that may be booked a month"), _l("GPU-hours")),
    "month_day": (_l("The month begins on its day"), ""),
    "peak_percent": (_l("What a peak hour costs"), _l("percent of an hour")),
    "peak_from": (_l("Peak hours begin at"), _l("o'clock")),
    "peak_to": (_l("Peak hours end at"), _l("o'clock")),
    "peak_days": (_l("Peak hours are on"), ""),
    "weights": (_l("What an hour on a model costs"), _l("percent of an hour")),
    "models": (_l("Only these models"), ""),
    "hosts": (_l("Only these hosts"), ""),
    "late_hours": (_l("Giving back is late"), _l("hours before the time that is given back")),
    "late_percent": (_l("What is charged of what is given back late"), "%"),
    "noshow_minutes": (_l("A booking to which nobody comes ends after"), _l("minutes")),
    "idle_minutes": (_l("GPUs that do nothing are idle after"), _l("minutes")),
}
GROUPS: tuple[tuple[LazyString, LazyString | str, tuple[str, ...]], ...] = (  # heading, note, number fields
    (_l("One booking"), "", ("max_hours", "min_minutes", "grid_minutes", "notice_minutes", "horizon_days", "max_gpus")),
    (
        _l("All bookings of an account"),
        _l('What lies nearer than "far ahead" is not limited by it: free hours today stay free to book.'),
        ("gpus_at_once", "bookings_ahead", "gap_minutes", "far_days", "far_hours"),
    ),
    (
        _l("Hours that may be booked"),
        _l("Counted by when they are booked for, anew at 0:00 by the lab's clock. What is given back does not count."),
        ("hours_day", "hours_week", "week_day", "hours_month", "month_day"),
    ),
    (
        _l("Price"),
        _l("In percent: 100 is an hour as it is, 200 twice as much. A booking keeps the price at which it was made."),
        ("peak_percent", "peak_from", "peak_to", "peak_days", "weights"),
    ),
    (_l("Which GPUs"), _l("None ticked: all of them."), ("models", "hosts")),
    (
        _l("Giving back and not coming"),
        _l(
            "The same is charged for what is cancelled, shortened or ended early: nobody gains by waiting. Nobody came "
            "to a booking whose GPUs no running machine took; where GPUs that do nothing are given back, also to one "
            "whose GPUs were never used, but there its owner is told first."
        ),
        ("late_hours", "late_percent", "noshow_minutes", "idle_minutes"),
    ),
)


def weekday_name(day: int) -> str:
    """The weekday's name in the reader's language; 0 is Monday."""
    return str(get_day_names("wide", locale=get_locale())[day])


def label(rule: str) -> str:
    """A rule's name."""
    return str(FIELDS[rule][0]) if rule in FIELDS else rule


def value_text(rule: str, value: Any) -> str:
    """A value as it is stored, in words; None is "not set"."""
    if value is None:
        return _("not set")
    if rule == "week_day":
        return weekday_name(value)
    if rule == "peak_days":
        return listed(weekday_name(day) for day in value)
    if rule == "weights":
        return listed(f"{model}: {percent} %" for model, percent in sorted(value.items()))
    if rule in {"models", "hosts"}:
        return listed(value)
    return f"{value} {FIELDS[rule][1]}".strip()


def own_rules(values: dict[str, Any]) -> list[str]:
    """What a class sets itself, a line for each."""
    return [
        _("%(rule)s: %(value)s", rule=label(one), value=value_text(one, values[one])) for one in FIELDS if one in values
    ]


def sentences(rules: Rules, zone: str) -> Iterator[str]:
    """What those who book by these rules should know; use by day, week and month is told beside it."""
    yield ngettext(
        "A booking may last %(hours)s hours and take %(num)s GPU at most, up to %(days)s days ahead.",
        "A booking may last %(hours)s hours and take %(num)s GPUs at most, up to %(days)s days ahead.",
        rules.max_gpus,
        hours=rules.max_hours,
        days=rules.horizon_days,
    )
    if rules.min_minutes is not None:
        yield _("A booking lasts %(min)s minutes at least.", min=rules.min_minutes)
    if rules.grid_minutes is not None:
        yield _("Starts and ends lie on a grid of %(minutes)s minutes.", minutes=rules.grid_minutes)
    if rules.notice_minutes is not None:
        yield _("A booking must be made %(notice)s minutes before it starts.", notice=rules.notice_minutes)
    yield from _of_all(rules)
    yield from _of_prices(rules, zone)


def _of_all(rules: Rules) -> Iterator[str]:
    if rules.gpus_at_once is not None:
        yield ngettext("You may have %(num)s GPU at once.", "You may have %(num)s GPUs at once.", rules.gpus_at_once)
    if rules.bookings_ahead is not None:
        yield ngettext(
            "You may have %(num)s booking that has not started.",
            "You may have %(num)s bookings that have not started.",
            rules.bookings_ahead,
        )
    if rules.gap_minutes is not None:
        yield _("Between two bookings of yours must lie %(gap)s minutes.", gap=rules.gap_minutes)
    if rules.far_days is not None and rules.far_hours is not None:
        yield _(
            "Of what lies more than %(days)s days ahead you may hold %(max)s GPU-hours; nearer time is free of this.",
            days=rules.far_days,
            max=rules.far_hours,
        )
    if rules.models:
        yield _("You may use: %(models)s.", models=listed(rules.models))
    if rules.hosts:
        yield _("You may use GPUs of: %(hosts)s.", hosts=listed(rules.hosts))


def _of_prices(rules: Rules, zone: str) -> Iterator[str]:
    for model, percent in sorted(rules.weights.items()):
        yield _("An hour on %(model)s counts %(percent)s%%.", model=model, percent=percent)
    if rules.peak_percent is not None:
        yield _(
            "From %(start)s to %(end)s o'clock (%(zone)s), on %(days)s, an hour counts %(percent)s%%.",
            start=rules.peak_from,
            end=rules.peak_to,
            zone=zone,
            days=listed(weekday_name(day) for day in rules.peak_days),
            percent=rules.peak_percent,
        )
    if rules.late_hours is not None and rules.late_percent is not None:
        yield _(
            "Of what is given back less than %(hours)s hours before its time, %(percent)s%% is charged.",
            hours=rules.late_hours,
            percent=rules.late_percent,
        )
    if rules.noshow_minutes is not None:
        yield _(
            "A booking whose GPUs no running machine of yours takes ends %(minutes)s minutes after its start.",
            minutes=rules.noshow_minutes,
        )
