"""The calendar's arithmetic, without a database."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from app.models import GpuState
from app.services import periods, timeline
from app.services.timeline import Frame
from app.services.timeline_parts import NOBODY, ShownGpu, Span, Waiting

SHANGHAI, BERLIN, CAIRO = ZoneInfo("Asia/Shanghai"), ZoneInfo("Europe/Berlin"), ZoneInfo("Africa/Cairo")
MONDAY = date(2026, 11, 2)


def frame(monday: date = MONDAY, zone: ZoneInfo = SHANGHAI, now: datetime | None = None, **values: object) -> Frame:
    found = periods.edges(monday, zone)
    return Frame(found, now or found[0], viewer_id=1, **values)  # type: ignore[arg-type]


def span(start: datetime, hours: float, *, gpu: int = 1, user: int = 1) -> Span:
    return Span(gpu, 7, start, start + timedelta(hours=hours), user, "Li Wei")


def a_gpu(number: int, state: GpuState = GpuState.IN_SERVICE) -> ShownGpu:
    return ShownGpu(number, "NVIDIA H100", number, state)


def test_an_ordinary_week_has_336_half_hours() -> None:
    it = frame()
    assert it.start == datetime(2026, 11, 1, 16, tzinfo=UTC)
    assert [it.unit(it.start + timedelta(minutes=30) * n) for n in range(337)] == list(range(337))
    assert it.unit(it.start - timedelta(days=1)) == 0
    assert it.unit(it.end + timedelta(days=1)) == 336


@pytest.mark.parametrize(("monday", "hours"), [(date(2026, 3, 23), 167), (date(2026, 10, 19), 169)])
def test_in_a_week_with_a_clock_change_days_still_line_up(monday: date, hours: int) -> None:
    it = frame(monday, BERLIN)
    assert it.end - it.start == timedelta(hours=hours)
    for number in range(7):
        assert it.unit(periods.midnight(monday + timedelta(days=number), BERLIN)) == number * 48
    sunday_noon = datetime.combine(monday + timedelta(days=6), datetime.min.time(), tzinfo=BERLIN).replace(hour=12)
    assert it.unit(sunday_noon.astimezone(UTC)) == 6 * 48 + 24


def test_a_day_without_midnight_begins_when_the_clocks_have_moved() -> None:
    day = date(2026, 4, 24)  # in Cairo clocks go from 00:00 to 01:00
    start = periods.midnight(day, CAIRO)
    assert start == datetime(2026, 4, 23, 22, tzinfo=UTC)
    found = periods.edges(date(2026, 4, 20), CAIRO)
    assert list(found) == sorted(set(found))
    assert len(found) == 43


def test_a_bar_is_cut_at_the_edges_and_never_narrower_than_a_unit() -> None:
    it = frame()
    first, second, third = timeline.bars(
        [
            span(it.start - timedelta(hours=10), 12),
            span(it.start + timedelta(hours=50), 0.1),
            span(it.end - timedelta(minutes=1), 5),
        ],
        it,
    )
    assert (first.start, first.width, first.before, first.after) == (0, 4, True, False)
    assert (second.start, second.width) == (100, 1)
    assert (third.start, third.width, third.after) == (335, 1, True)


def test_what_only_meets_the_edge_is_not_in_the_week() -> None:
    it = frame()
    assert timeline.bars([span(it.start - timedelta(hours=2), 2), span(it.end, 2)], it) == ()


def test_others_are_hidden_but_still_count() -> None:
    it = frame(mine_only=True)
    other = span(it.start, 4, user=2)
    assert timeline.bars([other], it) == ()
    assert timeline.gaps([other], it)[0].starts_at == it.start + timedelta(hours=4)


def test_gaps_lie_between_bookings_from_now_on() -> None:
    now = frame().start + timedelta(hours=5)
    it = frame(now=now)
    spans = [span(it.start, 6), span(it.start + timedelta(hours=6), 2), span(it.start + timedelta(hours=10), 1)]
    found = timeline.gaps(spans, it)
    assert [(gap.starts_at - it.start, gap.ends_at - it.start) for gap in found] == [
        (timedelta(hours=8), timedelta(hours=10)),
        (timedelta(hours=11), timedelta(days=7)),
    ]
    assert timeline.gaps([], frame(now=it.end)) == ()


def test_cells_count_what_is_free_for_all_of_them() -> None:
    gpus = [a_gpu(number) for number in (1, 2)]
    now = frame().start + timedelta(hours=6)
    it = frame(now=now)
    spans = {1: [span(it.start + timedelta(hours=4), 1)], 2: [span(it.start + timedelta(hours=11), 2, gpu=2)]}
    found = timeline.cells(gpus, spans, it)
    assert len(found) == 42
    assert [cell.free for cell in found[:5]] == [None, 2, 1, 1, 2]  # what was booked until 05:00 is over at 06:00


def test_next_free_follows_what_runs_on_and_admits_what_it_cannot_see() -> None:
    it = frame()
    gpus = [a_gpu(1)]
    chain = [span(it.start - timedelta(hours=1), 2), span(it.start + timedelta(hours=1), 3)]
    assert timeline.next_free(gpus, {1: chain}, it.start, it.end) == it.start + timedelta(hours=4)
    assert timeline.next_free(gpus, {1: [span(it.start, 24 * 8)]}, it.start, it.end) is None
    assert timeline.next_free([], {}, it.start, it.end) is None


def test_cells_say_where_something_is_ones_own_or_maintenance() -> None:
    """Also in what is over: it is where one has been."""
    it = frame(now=frame().start + timedelta(hours=10))
    hours = [it.start + timedelta(hours=4) * number for number in range(43)]
    waits = [Waiting(3, hours[4], hours[6], 1, "", "", frozenset())]
    spans = {
        1: [span(hours[0], 1), span(hours[2] + timedelta(hours=3), 3, user=5), span(hours[5], 4)],
        2: [span(hours[3], 4, gpu=2, user=NOBODY), span(hours[41], 400, gpu=2)],
    }
    found = timeline.cells([a_gpu(1), a_gpu(2)], spans, it, waits)
    marked = {number: (cell.mine, cell.kept, cell.waited) for number, cell in enumerate(found)}
    assert {number: marks for number, marks in marked.items() if any(marks)} == {
        0: (True, False, False),
        3: (False, True, False),
        4: (False, False, True),
        5: (True, False, True),
        41: (True, False, False),
    }


def test_a_gpu_out_of_service_is_not_counted_but_its_bookings_are_marked() -> None:
    it = frame()
    gpus = [a_gpu(1), a_gpu(2, GpuState.QUARANTINE)]
    found = timeline.cells(gpus, {2: [span(it.start, 1, gpu=2)]}, it)
    assert [(cell.free, cell.mine) for cell in found[:2]] == [(1, True), (1, False)]
