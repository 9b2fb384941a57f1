"""What the API takes, as pydantic models; what is wrong with it, in our words."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    StringConstraints,
    model_validator,
)
from pydantic_core import PydanticCustomError

from app.language import gettext as _
from app.services.claims import Ask
from app.web.api.answers import FieldError
from app.web.api.moments import ClockTime, DayIn, MomentIn

BIGGEST_ID = 2**63 - 1


def _encodable(text: str) -> str:
    """JSON can escape half of a surrogate pair, which is no text that could be stored."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise PydanticCustomError("string_unicode", "not Unicode") from None
    return text


Id = Annotated[StrictInt, Field(ge=1, le=BIGGEST_ID)]
Text = Annotated[StrictStr, AfterValidator(_encodable)]
Line = Annotated[Text, StringConstraints(max_length=120, pattern=r"^[^\x00-\x1f\x7f]*$")]


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Choice(_In):
    """These GPUs, or so many of any kind, of one model, on one host; what for, and who pays."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    gpus: Annotated[list[Id], Field(min_length=1, max_length=64)] | None = None
    """Ids of GPUs of one host. In place of it: `count`."""
    count: Annotated[StrictInt, Field(ge=1, le=64)] | None = None
    """How many GPUs, all of one host; Berth picks them."""
    model: Line = ""
    """With `count`: only GPUs of this model."""
    host: Line = ""
    """With `count`: only GPUs of this host."""
    note: Text = ""
    """What it is for: one line, 200 characters at most."""
    account: Line = ""
    """The team's account that pays, such as `team:vision`. Left out: one's own."""

    @model_validator(mode="after")
    def _one_way_to_choose(self) -> Self:
        if (self.gpus is None) == (self.count is None):
            raise PydanticCustomError("choice", _('Name the GPUs in "gpus", or say how many in "count"; not both.'))
        if self.gpus is not None and (self.model or self.host):
            raise PydanticCustomError("choice", _('"model" and "host" go with "count", not with "gpus".'))
        return self


class NewBooking(_Choice):
    """What to book: these GPUs, or so many of any kind, of one model, on one host."""

    starts_at: MomentIn | None = None
    """Left out: now."""
    ends_at: MomentIn

    def ask(self, key: str | None) -> Ask:
        """What is asked for, as services have it; `key` makes one of a request that is sent twice."""
        return Ask(
            ends_at=self.ends_at,
            starts_at=self.starts_at,
            gpu_ids=tuple(self.gpus or ()),
            count=self.count or 1,
            model=self.model,
            host=self.host,
            note=self.note,
            account=self.account,
            request_key=key,
        )


class NewSeries(_Choice):
    """What to book again and again: the same hours on certain weekdays."""

    weekdays: Annotated[list[Annotated[StrictInt, Field(ge=0, le=6)]], Field(min_length=1, max_length=7)]
    """0 for Monday."""
    start_time: ClockTime
    """By the wall clock of `zone`, such as 20:00."""
    end_time: ClockTime
    """Not later than `start_time`: on the next day."""
    first_day: DayIn | None = None
    """Left out: today."""
    until: DayIn
    """The last day on which one may begin."""
    zone: Line = ""
    """A name such as Asia/Shanghai. Left out: one's own, else the lab's."""


class SeriesToBook(NewSeries):
    """A series and whether all of it must fit."""

    book: Literal["all", "fitting"] = "all"
    """`all` or nothing, or those that are `fitting`."""


class NewWait(NewBooking):
    """What to wait for: as for a booking, and how long of it."""

    hours: Annotated[float, Field(gt=0, le=8784)] | None = None
    """Any so many hours between `starts_at` and `ends_at`. Left out: exactly that window."""
    ask_first: StrictBool = False
    """Offer it, to be taken within the minutes that the lab has set; else it is booked at once."""


class NewEnd(_In):
    """The end that a booking should have: later or earlier than now booked."""

    ends_at: MomentIn


class NewNote(_In):
    """What a booking should say that it is for."""

    note: Text
    """One line, 200 characters at most; empty for nothing."""


class Nothing(_In):
    """No fields: send `{}` or no body at all."""


class IdempotencyHeaders(BaseModel):
    """`Idempotency-Key`: the same key, sent again by the same person, answers with the booking made the first time."""

    key: Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[!-~]+$")] | None = Field(
        default=None, alias="Idempotency-Key"
    )


class Span(_In):
    """Two moments."""

    from_: MomentIn | None = Field(default=None, alias="from", description="Left out: now.")
    to: MomentIn | None = Field(default=None, description="Left out: seven days after `from`.")


class FromQuery(_In):
    """A moment."""

    from_: MomentIn | None = Field(default=None, alias="from", description="Left out: now.")


class BookingsQuery(Span):
    """Which bookings."""

    mine: bool = Field(default=False, description="1: only one's own")


class PastSpan(_In):
    """Two moments, up to now unless said otherwise."""

    from_: MomentIn | None = Field(default=None, alias="from", description="Left out: 30 days before `to`.")
    to: MomentIn | None = Field(default=None, description="Left out: now.")
    all: bool = Field(default=False, description="1: everybody's (for admins)")


class InstancesQuery(_In):
    """Which machines."""

    all: bool = Field(default=False, description="1: everybody's (for admins)")


def field_errors(found: list[Any]) -> list[FieldError]:
    """Pydantic's findings in our words."""
    return [FieldError(field=".".join(str(part) for part in one["loc"]), message=_message(one)) for one in found]


def _message(found: dict[str, Any]) -> str:
    kind = str(found["type"])
    words = {
        "missing": _("This is missing."),
        "extra_forbidden": _("There is no such field."),
        "list_type": _("This must be a list."),
        "int_type": _("This must be a whole number."),
        "bool_parsing": _("This must be 0 or 1."),
        "string_type": _("This must be text."),
        "string_unicode": _("This must be text."),
        "string_pattern_mismatch": _("This has characters that cannot be in it."),
    }
    return words.get(kind) or str(found["msg"])
