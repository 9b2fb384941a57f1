"""What links, hidden fields and inputs of bookings carry: moments, and numbers of GPUs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from app.errors import InvalidInput
from app.language import gettext as _
from app.web.numbers import ID_DIGITS, whole


def moment(text: str) -> datetime | None:
    """What is written there, with its zone; None for anything else."""
    try:
        found = datetime.fromisoformat(text[:32])
    except ValueError:
        return None
    return found if found.tzinfo is not None and found.year in range(2000, 2200) else None


def sent_moment(text: str, field: str) -> datetime:
    """A moment from a hidden field. Raises InvalidInput if somebody changed it to nonsense."""
    found = moment(text)
    if found is None:
        raise InvalidInput(_("This form is no longer valid."), _("Check the booking again."), field=field)
    return found


def gpu_numbers(texts: list[str]) -> tuple[int, ...]:
    """GPU ids as a form or link carries them. Raises InvalidInput."""
    found = {whole(text, ID_DIGITS) for text in texts}
    if None in found:
        raise InvalidInput(_("There is no such GPU to book."), _("Choose one from the calendar."), field="gpu")
    return tuple(sorted(number for number in found if number is not None))


def count_of(values: Mapping[str, str]) -> int:
    """How many GPUs a link or a button asks for: one, where it does not say."""
    count = whole(values.get("count", ""), 3)
    return 1 if count is None else count


def typed_count(text: str | None) -> int:
    """How many GPUs somebody wrote. Raises InvalidInput."""
    if not (count := whole((text or "").strip(), 4)):
        raise InvalidInput(_("Give a whole number from 1 on."), field="count")
    return count
