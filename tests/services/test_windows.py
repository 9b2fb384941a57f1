from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import InvalidInput
from app.services.windows import Window, ceil_to_grid, floor_to_grid, hours_text, snapped

NOW = datetime(2026, 11, 3, 14, 7, 31, 250_000, tzinfo=UTC)
SLOT = 900


def at(hour: int, minute: int = 0, second: int = 0) -> datetime:
    return datetime(2026, 11, 3, hour, minute, second, tzinfo=UTC)


def test_a_window_from_now_starts_at_this_second_and_ends_on_the_grid() -> None:
    window = snapped(None, at(16, 1), NOW, SLOT)
    assert (window.starts_at, window.ends_at) == (at(14, 7, 31), at(16, 15))
    assert window.seconds == 2 * 3600 + 7 * 60 + 29


def test_a_window_from_later_on_is_never_shorter_than_asked() -> None:
    window = snapped(at(15, 20), at(16, 20), NOW, SLOT)
    assert (window.starts_at, window.ends_at) == (at(15, 15), at(16, 30))


def test_a_start_inside_this_slot_does_not_slip_into_the_past() -> None:
    assert snapped(at(14, 10), at(16), NOW, SLOT).starts_at == at(14, 7, 31)


@pytest.mark.parametrize("late", [0, 30, 59])
def test_a_form_that_was_open_for_a_minute_means_now(late: int) -> None:
    assert snapped(NOW - timedelta(seconds=late), at(16), NOW, SLOT).starts_at == at(14, 7, 31)


def test_other_zones_mean_the_same_moment() -> None:
    shanghai = timezone(timedelta(hours=8))
    window = snapped(at(15).astimezone(shanghai), at(16).astimezone(shanghai), NOW, SLOT)
    assert window == Window(at(15), at(16))


@pytest.mark.parametrize(
    ("start", "end", "field"),
    [
        (at(15).replace(tzinfo=None), at(16), "starts_at"),
        (at(15), at(16).replace(tzinfo=None), "ends_at"),
        (at(15), at(15), "ends_at"),
        (at(16), at(15), "ends_at"),
        (at(13), at(16), "starts_at"),
        (NOW - timedelta(seconds=61), at(16), "starts_at"),
        (None, at(14), "ends_at"),
        (at(15), at(15) + timedelta(days=367), "ends_at"),
        (NOW - timedelta(seconds=50), NOW - timedelta(seconds=10), "ends_at"),
        (datetime.max.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC), "starts_at"),
        (None, datetime.max.replace(tzinfo=timezone(-timedelta(hours=12))), "ends_at"),
        (datetime.min.replace(tzinfo=timezone(timedelta(hours=12))), at(16), "starts_at"),
    ],
    ids=[
        "naive start",
        "naive end",
        "empty",
        "reversed",
        "past",
        "just past",
        "over already",
        "absurd",
        "a late start and an end that is over",
        "the end of time",
        "beyond the end of time",
        "before all time",
    ],
)
def test_what_cannot_be_meant_is_refused_by_field(
    app: object, start: datetime | None, end: datetime, field: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        snapped(start, end, NOW, SLOT)
    assert refused.value.field == field
    assert refused.value.brief


def test_the_hour_that_comes_twice_is_two_hours() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    first, second = (datetime(2026, 10, 25, 2, 30, tzinfo=berlin, fold=fold) for fold in (0, 1))
    window = snapped(first, second, datetime(2026, 10, 24, tzinfo=UTC), SLOT)
    assert window.seconds == 3600


@given(
    now=st.integers(0, 10**13).map(lambda microseconds: NOW + timedelta(microseconds=microseconds)),
    start=st.none() | st.integers(-60_000_000, 10**10),
    length=st.integers(1, 10**9),
    slot=st.sampled_from([1, 60, 900, 3600]),
)
def test_a_window_covers_what_was_asked_and_never_the_past(
    now: datetime, start: int | None, length: int, slot: int
) -> None:
    asked = None if start is None else now + timedelta(microseconds=start)
    end = max(asked or now, now) + timedelta(microseconds=length)
    window = snapped(asked, end, now, slot)
    this_second = now.replace(microsecond=0)
    assert this_second <= window.starts_at <= max(asked or this_second, now)
    assert end <= window.ends_at < end + timedelta(seconds=slot)
    assert window.seconds == (window.ends_at - window.starts_at) / timedelta(seconds=1) > 0
    assert int(window.ends_at.timestamp()) % slot == 0


def test_grid_lines_are_their_own_floor_and_ceiling() -> None:
    assert floor_to_grid(at(14, 15), SLOT) == ceil_to_grid(at(14, 15), SLOT) == at(14, 15)
    assert floor_to_grid(NOW, SLOT) == at(14)
    assert ceil_to_grid(NOW, SLOT) == at(14, 15)
    assert ceil_to_grid(NOW, 1) == at(14, 7, 32)


def test_back_to_back_windows_do_not_overlap() -> None:
    assert not Window(at(14), at(15)).overlaps(Window(at(15), at(16)))
    assert Window(at(14), at(15, 0, 1)).overlaps(Window(at(15), at(16)))


@pytest.mark.parametrize(("seconds", "text"), [(3600, "1"), (5400, "1.5"), (900, "0.25"), (0, "0"), (36_000, "10")])
def test_hours_have_no_needless_decimals(seconds: int, text: str) -> None:
    assert hours_text(seconds) == text
