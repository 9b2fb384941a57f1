"""Which warnings are due, each once, and what they say."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from app.drivers.base import NVIDIA_MAJOR, GpuInfo
from app.drivers.kernel import Holder, How, Scan
from app.extensions import db
from app.models import Allocation, Booking, Host, User
from app.services import changes, further, warning_words, warnings
from app.services.warnings import Due
from tests.factories import gpus_of, make_booking, make_host, make_user
from tests.services.conftest import NOW, Freeze

END = NOW + timedelta(hours=2)
END_TEXT = "00:00 Asia/Shanghai"
WHAT_HAPPENS = "Programs that still run there are asked to end (SIGTERM) and killed 20 s later (SIGKILL)."
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def booking(host: Host, alice: User) -> Booking:
    return make_booking(alice, gpus_of(host)[:2], NOW - HOUR, END)


def allocations(booking: Booking) -> list[Allocation]:
    query = db.select(Allocation).where(Allocation.booking_id == booking.id).order_by(Allocation.id)
    return list(db.session.scalars(query))


def minutes(host: Host, at: datetime, freeze: Freeze) -> list[int]:
    """What is due then; it is given."""
    freeze(at)
    found = warnings.due(host)
    assert all(warnings.mark(warning, None) for warning in found)
    return [warning.minutes for warning in found]


def test_each_is_due_once(host: Host, booking: Booking, freeze: Freeze) -> None:
    steps = [(16, []), (15, [15]), (14.9, []), (5.1, []), (5, [5]), (4, []), (1, [1]), (0.5, []), (0, []), (-1, [])]
    for before, expected in steps:
        assert minutes(host, END - before * MINUTE, freeze) == expected, before
    assert {allocation.warned for allocation in allocations(booking)} == {1}


def test_after_an_outage_only_the_last_is_given(host: Host, booking: Booking, freeze: Freeze) -> None:
    assert minutes(host, END - 3 * MINUTE, freeze) == [5]
    assert minutes(host, END - 2 * MINUTE, freeze) == []


@pytest.mark.parametrize(("length", "expected"), [(15, [15, 5, 1]), (14, [5, 1]), (5, [5, 1]), (4, [1]), (0.9, [])])
def test_none_lies_before_the_start(
    host: Host, alice: User, freeze: Freeze, length: float, expected: list[int]
) -> None:
    make_booking(alice, gpus_of(host)[:1], END - length * MINUTE, END)
    given = [n for before in range(160) for n in minutes(host, END - (16 - before / 10) * MINUTE, freeze)]
    assert given == expected


def test_cancelled_over_and_elsewhere_nothing_is_due(host: Host, alice: User, booking: Booking, freeze: Freeze) -> None:
    freeze(END - 10 * MINUTE)
    assert warnings.due(make_host("lab04")) == []
    changes.end_now(alice, booking.id)
    assert warnings.due(host) == []


def test_a_later_end_is_warned_of_anew(host: Host, alice: User, booking: Booking, freeze: Freeze) -> None:
    assert minutes(host, END - MINUTE, freeze) == [1]
    for allocation in allocations(booking):
        allocation.asked_at = NOW
    changes.move_end(alice, booking.id, END + HOUR, 900)
    assert {(a.warned, a.asked_at) for a in allocations(booking)} == {(None, None)}
    later = END + HOUR
    assert [n for before in (16, 15, 5, 1) for n in minutes(host, later - before * MINUTE, freeze)] == [15, 5, 1]


def test_nobody_is_told_what_they_have_just_decided(host: Host, alice: User, booking: Booking, freeze: Freeze) -> None:
    assert minutes(host, END - MINUTE, freeze) == [1]
    changes.move_end(alice, booking.id, END + 10 * MINUTE, 60)  # eleven minutes from now
    assert warnings.due(host) == []
    assert minutes(host, END + 5 * MINUTE, freeze) == [5]


def test_an_earlier_end_is_warned_of_when_it_comes(host: Host, alice: User, booking: Booking, freeze: Freeze) -> None:
    assert minutes(host, END - 12 * MINUTE, freeze) == [15]
    changes.move_end(alice, booking.id, END - 8 * MINUTE, 60)
    assert minutes(host, END - 12 * MINUTE, freeze) == [5]


def test_an_end_that_moved_meanwhile_is_not_marked(host: Host, alice: User, booking: Booking, freeze: Freeze) -> None:
    freeze(END - 5 * MINUTE)
    (warning,) = warnings.due(host)
    changes.move_end(alice, booking.id, END + HOUR, 900)
    assert not warnings.mark(warning, None)
    assert {allocation.warned for allocation in allocations(booking)} == {None}


def test_two_agents_give_it_once(host: Host, booking: Booking, freeze: Freeze) -> None:
    freeze(END - 5 * MINUTE)
    first, second = warnings.due(host), warnings.due(host)
    assert warnings.mark(first[0], None)
    assert not warnings.mark(second[0], None)


def test_a_gpu_that_stays_is_not_named(host: Host, alice: User, booking: Booking, freeze: Freeze) -> None:
    freeze(END - 5 * MINUTE)
    next_one = make_booking(alice, gpus_of(host)[:1], END, END + HOUR)
    (warning,) = warnings.due(host)
    assert [claim.gpu.minor for claim in warning.claims] == [1]
    assert warnings.mark(warning, None)
    assert warnings.due(host) == []
    changes.cancel(alice, next_one.id)
    make_booking(alice, gpus_of(host)[:2], END, END + HOUR)
    freeze(END - MINUTE)
    assert warnings.due(host) == []


def holder(pid: int, *minors: int, name: str = "python", instance: str = "alice", how: How = How.OPEN) -> Holder:
    return Holder(pid, pid, instance, name, frozenset((NVIDIA_MAJOR, minor) for minor in minors), how)


def found(host: Host, scan: Scan, freeze: Freeze) -> tuple[Due, warnings.Held]:
    freeze(END - 5 * MINUTE)
    (warning,) = [due for due in warnings.due(host) if due.ends_at == END]
    claims = warnings.running(host)
    return warning, warnings.held(warning, "alice", scan, claims, warnings.numbers_of(claims, []))


def test_what_holds_the_gpus_is_kept(host: Host, alice: User, booking: Booking, freeze: Freeze) -> None:
    other = make_booking(alice, gpus_of(host)[2:3], NOW - HOUR, END + HOUR)
    scan = Scan((
        holder(7, 0), holder(7, 0, how=How.MAPPED), holder(8, 1, 2, name="a\x1b[2J\n" + "b" * 90), holder(9, 2),
        holder(5, 0, instance="bob"), holder(6),
    ))  # fmt: skip
    warning, held = found(host, scan, freeze)
    one, two = allocations(booking)
    assert held == {
        one.id: [{"pid": 7, "name": "python", "also": []}],
        two.id: [{"pid": 8, "name": "a[2J" + "b" * 36, "also": [other.id]}],
    }
    assert warnings.mark(warning, held)
    assert [allocation.holders for allocation in allocations(booking)] == [held[one.id], held[two.id]]


def test_of_very_many_the_telling_ones_are_kept(host: Host, alice: User, booking: Booking, freeze: Freeze) -> None:
    other = make_booking(alice, gpus_of(host)[2:3], NOW - HOUR, END + HOUR)
    scan = Scan((*(holder(pid, 0) for pid in range(1, 500)), holder(999, 0, 2)))
    _warning, held = found(host, scan, freeze)
    entries = held[allocations(booking)[0].id]
    assert len(entries) == warnings.MOST
    assert entries[0] == {"pid": 999, "name": "python", "also": [other.id]}


def test_a_gpu_is_used_through_its_drm_nodes_too(host: Host, booking: Booking) -> None:
    claims = warnings.running(host)
    listed = GpuInfo(claims[0].gpu.pci_address, "x", claims[0].gpu.minor, drm=frozenset({(226, 128)}))
    assert (226, 128) in warnings.numbers_of(claims, [listed])[claims[0].allocation_id]


def words(host: Host, scan: Scan | None, freeze: Freeze) -> tuple[str, str]:
    warning, held = found(host, scan or Scan(), freeze)
    return warning_words.message(warning, held if scan else None, warnings.running(host))


def test_the_words(host: Host, alice: User, booking: Booking, freeze: Freeze) -> None:
    title, text = words(host, None, freeze)
    assert title == "Your 2 GPUs on lab03 go at 00:00 Asia/Shanghai (in 5 min)"
    assert text.splitlines() == [
        f"At {END_TEXT}, GPU 0, GPU 1 will be taken away. {WHAT_HAPPENS}",
        f"To extend it or to end it now, open booking {booking.id} in Berth.",
    ]


def test_the_words_say_to_when_it_can_be_extended_or_why_not(
    host: Host, alice: User, booking: Booking, freeze: Freeze
) -> None:
    alice.locale = "zh_Hans_CN"
    warning, _held = found(host, Scan(), freeze)

    def last() -> list[str]:
        room = further.by_id(booking.id, warning_words.languages(warning))
        lines = warning_words.message(warning, None, [], room)[1].splitlines()
        return [lines[lines.index("") - 1], lines[-1]]

    assert last()[0] == f"To extend it (to 02:00 Asia/Shanghai) or to end it now, open booking {booking.id} in Berth."
    make_booking(make_user("bob"), gpus_of(host)[:1], END, END + HOUR)
    english, chinese = last()
    assert english == "It cannot be extended: its GPUs are booked from 00:00 Asia/Shanghai on."
    assert "00:00 Asia/Shanghai" in chinese
    assert chinese != english


def test_the_words_where_somebody_comes_next(host: Host, alice: User, booking: Booking, freeze: Freeze) -> None:
    make_booking(make_user("bob"), gpus_of(host)[:1], END, END + HOUR)
    assert (
        "asked to end (SIGTERM) at 23:59:40 Asia/Shanghai and killed (SIGKILL) at 00:00" in words(host, None, freeze)[1]
    )


def test_the_words_name_what_is_ended_with_it(host: Host, alice: User, booking: Booking, freeze: Freeze) -> None:
    other = make_booking(alice, gpus_of(host)[2:3], NOW - HOUR, END + HOUR)
    scan = Scan((holder(7, 0, 1, 2), holder(8, 0), holder(9, 1, name="jupyter")))
    text = words(host, scan, freeze)[1]
    assert "Running there now: python (2), jupyter." in text
    assert f"python also holds a GPU of booking {other.id}, which goes on until 01:00 Asia/Shanghai" in text


def test_the_words_in_the_owners_language_and_zone(host: Host, alice: User, booking: Booking, freeze: Freeze) -> None:
    alice.locale, alice.timezone = "zh_Hans_CN", "Europe/Berlin"
    db.session.flush()
    title, text = words(host, None, freeze)
    assert title == "Your 2 GPUs on lab03 go at 17:00 Europe/Berlin (in 5 min)"
    assert "lab03 上" in text
    assert text.index("SIGKILL") < text.index("lab03 上")
    alice.locale, alice.timezone = "no-such", "Nowhere/At_All"
    db.session.flush()
    assert "UTC" in words(host, None, freeze)[0]
