"""The booking form: filled from a link, a refused request or what was typed, and read as an Ask."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

from werkzeug.datastructures import MultiDict
from wtforms import SelectField, SelectMultipleField, StringField

from app import clock
from app.errors import InvalidInput
from app.language import gettext as _
from app.language import lazy_gettext as _l
from app.language import ngettext
from app.services.bookings import Ask
from app.services.windows import ceil_to_grid, floor_to_grid
from app.web import local_times, times
from app.web.bookings import carried
from app.web.bookings.blueprint import slot
from app.web.bookings.repeat import RepeatForm

USUAL_HOURS = 4
QUICK_HOURS = (2, 4, 12, 24)
FIELDS = {"starts_at": "start_time", "ends_at": "end_time", "gpus": "gpu"}  # the services' names, where ours differ
Result = TypeVar("Result")


class BookingForm(RepeatForm):
    """All as typed; `read` makes sense of it."""

    count = StringField(_l("How many GPUs"), default="1")
    model = SelectField(_l("GPU model"), validate_choice=False)
    start_date = StringField(_l("Start date"))
    start_time = StringField(_l("Start time"))
    end_date = StringField(_l("End date"))
    end_time = StringField(_l("End time"))
    note = StringField(_l("Purpose"))
    account = SelectField(_l("Account"), validate_choice=False)
    host = SelectField(_l("Host"), validate_choice=False)
    gpu = SelectMultipleField(_l("GPUs"), validate_choice=False)

    def refuse(self, error: InvalidInput) -> None:
        """The services speak of moments, the form has dates and times."""
        error.field = FIELDS.get(error.field, error.field)
        super().refuse(error)

    def offer(self, models: list[str], hosts: list[str], teams: Iterable[tuple[str, str]] = ()) -> BookingForm:
        """Fill the lists to choose from; `teams`: names of accounts beside one's own, with their titles."""
        self.account.choices = [("", _("My own")), *teams]
        self.model.choices = [("", _("Any")), *((name, name) for name in models)]
        self.host.choices = [("", _("Any")), *((name, name) for name in hosts)]
        return self


def typed(values: MultiDict[str, str]) -> BookingForm:
    """The form as it was sent; `hours` is the quick choice of an end."""
    return BookingForm(formdata=values)


def of_ask(ask: Ask) -> BookingForm:
    """The form filled with a request."""
    zone = times.viewer_zone()
    start = ask.starts_at or clock.now()
    one_day = local_times.date_text(start, zone) == local_times.date_text(ask.ends_at, zone)
    return BookingForm(
        formdata=None,
        count=str(len(ask.gpu_ids) or ask.count),
        model=ask.model,
        host=ask.host,
        gpu=[str(number) for number in ask.gpu_ids],
        start_date=local_times.date_text(start, zone),
        start_time=local_times.time_text(start, zone) if ask.starts_at else "",
        end_date="" if one_day or _is_next_morning(start, ask.ends_at) else local_times.date_text(ask.ends_at, zone),
        end_time=local_times.time_text(ask.ends_at, zone),
        note=ask.note,
        account=ask.account,
    )


def of_link(args: Mapping[str, str], gpu_ids: tuple[int, ...]) -> Ask:
    """What a link to the form asks for: `count`, `model`, `host`, `gpu`, `start`, `end`, with what is usual else."""
    start, end = carried.moment(args.get("start", "")), carried.moment(args.get("end", ""))
    if start is not None and start <= clock.now():
        start = None
    if end is None or end <= (start or clock.now()):
        end = end_after(start, USUAL_HOURS)
    return Ask(
        ends_at=end,
        starts_at=start,
        gpu_ids=gpu_ids,
        count=carried.count_of(args),
        model=args.get("model", "")[:120],
        host=args.get("host", "")[:63],
        note=args.get("note", ""),
        account=args.get("account", "")[:64],
    )


def end_after(start: datetime | None, hours: float) -> datetime:
    """About so many hours after a start (None: now), on the nearest line of the grid."""
    first = start or clock.now().replace(microsecond=0)
    exact = first + timedelta(hours=hours)
    near = floor_to_grid(exact + timedelta(seconds=slot() / 2), slot())
    return near if near > first else ceil_to_grid(exact, slot())


def capped(ask: Ask, seconds: float) -> Ask:
    """The same with an end that lies at most so far from the start."""
    start = ask.starts_at or clock.now()
    latest = floor_to_grid(start + timedelta(seconds=seconds), slot())
    return replace(ask, ends_at=latest) if start < latest < ask.ends_at else ask


def read(form: BookingForm, hours: str = "") -> Ask | None:
    """What was typed, as a request; None if it cannot be meant, and then each field says why."""
    found = len(form.form_errors)
    start = _try(form, lambda: _start(form))
    if hours in {str(choice) for choice in QUICK_HOURS} and start is not None:
        end = _try(form, lambda: end_after(start[0], int(hours)))
    else:
        end = _try(form, lambda: _end(form, start[0] if start else None))
    gpu_ids = _try(form, lambda: carried.gpu_numbers(form.gpu.data or []))
    count = _try(form, lambda: _count(form, len(gpu_ids or ())))
    _try(form, lambda: _known(form))
    if start is None or end is None or gpu_ids is None or count is None or form.errors or len(form.form_errors) > found:
        return None
    return Ask(
        ends_at=end,
        starts_at=start[0],
        gpu_ids=gpu_ids,
        count=count,
        model=form.model.data or "",
        host=form.host.data or "",
        note=(form.note.data or "").strip(),
        account=form.account.data or "",
    )


def _try(form: BookingForm, part: Callable[[], Result]) -> Result | None:
    try:
        return part()
    except InvalidInput as error:
        form.refuse(error)
        return None


def _count(form: BookingForm, ticked: int) -> int:
    count = carried.typed_count(form.count.data)
    if 0 < ticked < count:
        brief = ngettext(
            "You chose %(num)s GPU below, but ask for %(count)s.",
            "You chose %(num)s GPUs below, but ask for %(count)s.",
            ticked,
            count=count,
        )
        raise InvalidInput(brief, _("Choose as many, or none to get any."), field="count")
    return ticked or count


def _known(form: BookingForm) -> None:
    for field, words in (
        (form.model, _("There is no such model.")),
        (form.host, _("There is no such host.")),
        (form.account, _("You cannot book on this account.")),
    ):
        if field.data and field.data not in {value for value, _text in field.choices}:
            raise InvalidInput(words, _("Choose one from the list."), field=field.name)


def _start(form: BookingForm) -> tuple[datetime | None]:
    """The start, None for now; in a tuple, so that it can be told from no answer."""
    zone = times.viewer_zone()
    today = clock.now().astimezone(zone).date()
    day_text, time_text = (form.start_date.data or "").strip(), (form.start_time.data or "").strip()
    day = local_times.parse_date(day_text, "start_date") if day_text else today
    if not time_text and day <= today:
        if day < today:
            raise InvalidInput(_("The start lies in the past."), _("Choose a start from now on."), field="start_date")
        return (None,)
    if not time_text:
        raise InvalidInput(_("Give a time such as 20:00."), field="start_time")
    return (local_times.moment(day, local_times.parse_time(time_text, "start_time"), zone, "start_time"),)


def _end(form: BookingForm, start: datetime | None) -> datetime:
    zone = times.viewer_zone()
    first = start or clock.now()
    day_text, time_text = (form.end_date.data or "").strip(), (form.end_time.data or "").strip()
    if not time_text:
        raise InvalidInput(_("Give a time such as 08:00."), field="end_time")
    since_midnight = local_times.parse_time(time_text, "end_time")
    if day_text:
        return local_times.moment(local_times.parse_date(day_text, "end_date"), since_midnight, zone, "end_time")
    day = first.astimezone(zone).date()
    end = local_times.moment(day, since_midnight, zone, "end_time")
    if end < first:  # earlier than the start: it means the next day
        end = local_times.moment(day + timedelta(days=1), since_midnight, zone, "end_time")
    return end


def _is_next_morning(start: datetime, end: datetime) -> bool:
    """Whether the end is understood as the next day without a date."""
    zone = times.viewer_zone()
    first, last = start.astimezone(zone), end.astimezone(zone)
    return last.date() - first.date() == timedelta(days=1) and last.time() < first.time()


def as_values(ask: Ask, **more: Any) -> dict[str, Any]:
    """A request as the fields of a link or a hidden form."""
    values = {
        "count": ask.count,
        "model": ask.model,
        "host": ask.host,
        "gpu": list(ask.gpu_ids),
        "start": ask.starts_at.isoformat() if ask.starts_at else "",
        "end": ask.ends_at.isoformat(),
        "note": ask.note,
        "account": ask.account,
    }
    return {name: value for name, value in (values | more).items() if value not in ("", [])}
