"""The form for all that can be changed of a booking: what it sends, and what was shown beside it before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flask import request
from wtforms import SelectMultipleField, StringField

from app import clock
from app.errors import InvalidInput
from app.language import gettext as _
from app.language import lazy_gettext as _l
from app.language import ngettext
from app.models import Booking, Phase
from app.services import resizing
from app.services.edits import Edit, Seen
from app.services.resizing import Size
from app.services.windows import Window
from app.web.bookings import carried, times_form
from app.web.bookings.shown import seen
from app.web.bookings.times_form import TimesForm, fields, sent

MOST_GPUS = 64  # named in one hidden field


class EditForm(TimesForm):
    """Another time, number of GPUs, which these are, and purpose; what is not sent stays as it is."""

    count = StringField(_l("How many GPUs"))
    gpu = SelectMultipleField(_l("GPUs"), validate_choice=False)
    note = StringField(_l("Purpose"))

    def edit(self, booking: Booking) -> Edit:
        """What its fields say. Raises InvalidInput naming the field."""
        agreed = sent("agreed")
        window = self.window(booking, agreed) if self.end_time.data is not None else None
        size = None
        if self.count.data is not None:
            same = agreed is not None and agreed == window and "ticked" not in request.values  # else: unticked since
            size = self._size(booking, numbers("take") if same else (), asked=agreed is not None)
        return Edit(window, size, self.note.data)

    def meant(self, booking: Booking) -> Window:
        """Its time as far as that can be read, else that of the booking."""
        try:
            return self.window(booking, None)
        except InvalidInput:
            return Window(booking.starts_at, booking.ends_at)

    def _size(self, booking: Booking, shown: tuple[int, ...], *, asked: bool) -> Size:
        """How many, and which: those that were chosen, else any, which are those that were shown. A number that was
        left as the booking has it does not speak against more that were chosen, but where it was `asked` about."""
        count, chosen = carried.typed_count(self.count.data), carried.gpu_numbers(self.gpu.data or [])
        typed = asked or count != len(booking.allocations)
        if chosen and (len(chosen) < count or (len(chosen) > count and typed)):
            brief = ngettext(
                "You chose %(num)s GPU below, but ask for %(count)s.",
                "You chose %(num)s GPUs below, but ask for %(count)s.",
                len(chosen),
                count=count,
            )
            raise InvalidInput(brief, _("Choose as many, or none to get any."), field="count")
        if chosen:
            return Size(len(chosen), chosen)
        return Size(count, shown if len(shown) == count else ())

    def complete(self, booking: Booking) -> None:
        """Fill in what was not sent, so that sending it changes nothing."""
        for name in ("count", "note"):
            if self[name].data is None:
                self[name].data = filled(booking)[name]


@dataclass(frozen=True)
class Agreed:
    """What was shown before it is made: the window, its GPUs, and what it costs beside a fee, in GPU-seconds."""

    window: Window
    gpu_ids: frozenset[int]
    more: int


def filled(booking: Booking) -> dict[str, Any]:
    """The form's fields for a booking as it is."""
    return fields(Window(booking.starts_at, booking.ends_at)) | {
        "count": str(len(booking.allocations)) if booking.phase(clock.now()) == Phase.UPCOMING else None,
        "note": booking.note,
    }


def as_seen(booking: Booking) -> dict[str, str]:
    """Hidden fields that say what it is that is changed."""
    ids = ",".join(map(str, sorted(resizing.gpu_ids(booking))))
    return {"seen": seen(booking), "seen_gpus": ids, "seen_note": booking.note}


def what_was_seen() -> Seen:
    """What those say. Raises InvalidInput for nonsense."""
    gpu_ids = frozenset(numbers("seen_gpus")) if "seen_gpus" in request.form else None
    return Seen(sent("seen"), gpu_ids, request.form.get("seen_note"))


def agreed() -> Agreed | None:
    """What the form was sent with, if it was shown what it would do. Raises InvalidInput for nonsense."""
    window, text = sent("agreed"), request.form.get("more", "0")
    number = int(text) if text.removeprefix("-").isdecimal() and text.isascii() and len(text) < 12 else 0
    return Agreed(window, frozenset(numbers("take")), number) if window else None


def numbers(name: str) -> tuple[int, ...]:
    """GPU ids in one hidden field: `12,13`. Raises InvalidInput."""
    text = request.values.get(name, "")
    return carried.gpu_numbers(text.split(",")[:MOST_GPUS]) if text else ()


def asking(booking: Booking, edit: Edit) -> str:
    """The form's address with this filled in: there it says what that does and costs, and asks."""
    chosen = request.form.getlist("gpu")[:MOST_GPUS]
    window = edit.window or Window(booking.starts_at, booking.ends_at)
    typed = dict[str, str | list[str]]()
    if edit.size:
        typed |= {"count": str(edit.size.count), "gpu": chosen}
    if edit.note is not None:
        typed["note"] = edit.note
    return times_form.asking(booking.id, window, **typed)
