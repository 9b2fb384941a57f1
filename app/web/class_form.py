"""The form of a class's rules: filled from what is stored, and read back. Empty means that there is no such rule."""

from __future__ import annotations

from typing import Any

from werkzeug.datastructures import MultiDict

from app.errors import InvalidInput
from app.language import gettext as _
from app.services.rules import terms
from app.web.numbers import whole

MANY = ("models", "hosts", "peak_days")
WEIGHT = "weight:"
WITH_PEAK = ("peak_from", "peak_to", "peak_days")
Values = MultiDict[str, str]


def of_values(values: dict[str, Any]) -> Values:
    """The form filled with rules as they are stored."""
    filled: Values = MultiDict()
    for name in terms.BOUNDS:
        filled[name] = str(values.get(name, ""))
    for name in MANY:
        filled.setlist(name, [str(one) for one in values.get(name, ())])
    if "peak_percent" in values and not values["peak_days"]:
        raise InvalidInput(_("Tick the days on which there are peak hours."), field="peak_days")
    if "peak_percent" not in values:
        filled.setlist("peak_days", ["0", "1", "2", "3", "4"])
    for model, percent in values.get("weights", {}).items():
        filled[WEIGHT + model] = str(percent)
    return filled


def read(form: Values) -> dict[str, Any]:
    """What was typed. Raises InvalidInput naming the field; bounds are checked by services.rules.terms."""
    values: dict[str, Any] = {}
    for name, bounds in terms.BOUNDS.items():
        if text := form.get(name, "").strip():
            values[name] = _number(name, text, *bounds)
    for name in ("models", "hosts"):
        values[name] = form.getlist(name)[: terms.MOST_NAMES]
    values["weights"] = {
        field.removeprefix(WEIGHT): _number(field, text.strip(), *terms.WEIGHT_BOUNDS)
        for field, text in form.items()
        if field.startswith(WEIGHT) and text.strip()
    }
    values["peak_days"] = [_number("peak_days", day, 0, 6) for day in form.getlist("peak_days")[:7]]
    if "peak_percent" in values and not values["peak_days"]:
        raise InvalidInput(_("Tick the days on which there are peak hours."), field="peak_days")
    if "peak_percent" not in values:  # without a price, when it would hold says nothing
        values = {name: value for name, value in values.items() if name not in WITH_PEAK}
    if values.get("week_day") == 0:  # Monday is what holds without a word
        del values["week_day"]
    return values


def ticked(form: Values) -> dict[str, set[str]]:
    """What is ticked, by field."""
    return {name: set(form.getlist(name)) for name in MANY}


def query(args: Values) -> dict[str, list[str]]:
    """The fields for a link."""
    return {name: args.getlist(name) for name in args if name != "recent"}


def _number(name: str, text: str, low: int, high: int) -> int:
    if (number := whole(text)) is None:
        raise InvalidInput(_("This must be a whole number from %(low)s to %(high)s.", low=low, high=high), field=name)
    return number
