"""/api/v1/series: many bookings at once, shown, made, read, given back."""

from __future__ import annotations

from datetime import datetime

from flask import url_for

from app import clock
from app.errors import InvalidInput
from app.extensions import lab_zone, transaction
from app.language import gettext as _
from app.models import Booking, Series, User
from app.services.bookings import Ask
from app.services.series import later, making, reading
from app.services.series.patterns import DAY, Pattern
from app.services.series.trial import Occurrence, Wish
from app.web.api.answers import OccurrenceOut, RefusedOut, SeriesOut, SeriesPreviewOut
from app.web.api.auth import bearer
from app.web.api.blueprint import bp, slot
from app.web.api.bookings import shown as booking_out
from app.web.api.schemas import BIGGEST_ID, FromQuery, IdempotencyHeaders, NewSeries, SeriesToBook
from app.web.api.spec import describe
from app.web.locale import zones
from app.web.wakes import wake_if_due

ID = f"<int(min=1, max={BIGGEST_ID}):series_id>"
MOST = 50  # series in one answer
FIELDS = {"starts_at": "start_time", "ends_at": "end_time"}  # the services' names, where ours differ


@bp.get("/series")
@describe(tag="series", answer=list[SeriesOut])
def list_series() -> list[SeriesOut]:
    """One's own series, the newest first, 50 at most; with all their bookings."""
    user, now = bearer().user, clock.now()
    found = reading.mine(user, MOST)
    members = reading.members(*(series.id for series in found))
    return [_shown(one, [booking for booking in members if booking.series_id == one.id], user, now) for one in found]


@bp.post("/series/preview")
@describe(tag="series", answer=SeriesPreviewOut, errors=(400, 404, 409, 413, 415))
def preview_series(json: NewSeries) -> SeriesPreviewOut:
    """Whether each booking of a series would be made, the ones before it counted. Books nothing."""
    user = bearer().user
    try:
        outcome = making.preview(user, _wish(user, json, None), slot())
    except InvalidInput as error:
        raise _named(error) from error
    return SeriesPreviewOut(
        fits=[
            OccurrenceOut(
                starts_at=one.window.starts_at,
                ends_at=one.window.ends_at,
                gpus=[gpu.id for gpu in one.gpus],
                gpu_hours=round(one.cost / 3600, 4),
            )
            for one in outcome.fitting
        ],
        refused=[_refused(one) for one in outcome.occurrences if one.refused is not None],
        gpu_hours=round(outcome.cost / 3600, 4),
        free=round(outcome.free / 3600, 4),
    )


@bp.post("/series")
@describe(tag="series", scope="book", status=201, answer=SeriesOut, errors=(400, 404, 409, 413, 415))
def create_series(json: SeriesToBook, headers: IdempotencyHeaders) -> tuple[SeriesOut, int, dict[str, str]]:
    """Book the same hours on certain weekdays: all of it or nothing, or with `"book": "fitting"` what fits.

    Times are those of the wall clock of `zone`, through changes of the clocks. With `Idempotency-Key`, sending the same
    request again books once.
    """
    user = bearer().user
    wish = _wish(user, json, headers.key)
    try:
        with transaction():
            made = making.create(user, wish, slot(), partial=json.book == "fitting")
            answer = _shown(made.series, made.bookings, user, clock.now(), made.refused)
    except InvalidInput as error:
        raise _named(error) from error
    wake_if_due(made.bookings[0])
    return answer, 201, {"Location": url_for("api.show_series", series_id=made.series.id)}


@bp.get(f"/series/{ID}")
@describe(tag="series", answer=SeriesOut, errors=(404,))
def show_series(series_id: int) -> SeriesOut:
    """One series, one's own or, for an admin, anybody's."""
    user = bearer().user
    found = reading.get(user, series_id)
    return _shown(found, reading.members(found.id), user, clock.now())


@bp.delete(f"/series/{ID}")
@describe(tag="series", scope="book", answer=SeriesOut, errors=(404, 409))
def delete_series(series_id: int, query: FromQuery) -> SeriesOut:
    """Cancel what of a series has not started and begins at `from` or later; left out: all of that."""
    user = bearer().user
    with transaction():
        found = reading.get(user, series_id)
        gone = later.cancel(user, found, query.from_ or clock.now())
        answer = _shown(found, reading.members(found.id), user, clock.now())
    wake_if_due(gone[0])
    return answer


def _wish(user: User, json: NewSeries, key: str | None) -> Wish:
    zone = json.zone or user.timezone or str(lab_zone())
    if json.zone and json.zone not in zones():
        raise InvalidInput(_("There is no such time zone."), _("Use a name such as Asia/Shanghai."), field="zone")
    opens, closes = json.start_time % DAY, json.end_time
    pattern = Pattern(
        tuple(sorted(set(json.weekdays))),
        opens,
        closes if closes > opens else closes + DAY,
        zone,
        json.first_day or clock.now().astimezone(lab_zone()).date(),
        json.until,
    )
    ask = Ask(
        ends_at=clock.now(),
        gpu_ids=tuple(json.gpus or ()),
        count=json.count or 1,
        model=json.model,
        host=json.host,
        note=json.note,
        account=json.account,
        request_key=key,
    )
    return Wish(pattern, ask)


def _named(error: InvalidInput) -> InvalidInput:
    """With the field named as the body has it."""
    return InvalidInput(error.brief, error.hint, field=FIELDS.get(error.field, error.field))


def _shown(
    series: Series, bookings: list[Booking], viewer: User, now: datetime, refused: list[Occurrence] | None = None
) -> SeriesOut:
    return SeriesOut(
        id=series.id,
        zone=series.zone,
        weekdays=series.weekdays,
        start_time=_clock(series.opens),
        end_time=_clock(series.closes % DAY),
        first_day=series.first_day.isoformat(),
        until=series.until.isoformat(),
        bookings=[booking_out(booking, viewer, now) for booking in bookings],
        refused=[_refused(one) for one in refused or ()],
    )


def _refused(one: Occurrence) -> RefusedOut:
    error = one.refused
    assert error is not None
    return RefusedOut(
        starts_at=one.window.starts_at, ends_at=one.window.ends_at, code=error.code, detail=error.brief, hint=error.hint
    )


def _clock(seconds: int) -> str:
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}"
