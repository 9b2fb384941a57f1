"""Every millisecond of a GPU is somebody's, and nobody's twice."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from app.drivers.base import DeviceSeen, HostSeen, InstanceSeen, Node, Tag
from app.services.attribution import HOST, Period, Use, Whose, owners
from app.services.samples import Part

PCI = "0000:01:00.0"
MINUTE = datetime(2026, 11, 2, 10, tzinfo=UTC)
AT = MINUTE + timedelta(seconds=30)
ALICE, BOB = Whose(7, "alice"), Whose(0, "bob")


def after(owner: Whose | None, busy: float | None, *uses: Use, seconds: float = 10, **values: float) -> list[Part]:
    period = Period(owner)
    period.add(AT, round(1000 * seconds), busy, values)
    return period.parts(PCI, uses)


def shares(parts: Sequence[Part]) -> dict[tuple[int, str], tuple[int, int]]:
    return {(part.booking, part.instance): (part.sampled_ms, part.busy_ms) for part in parts}


def test_the_time_is_the_bookings_and_what_others_keep_busy_is_theirs() -> None:
    assert shares(after(ALICE, 0.6)) == {(7, "alice"): (10_000, 6_000)}
    found = after(ALICE, 0.6, Use(ALICE, 100, 40), Use(BOB, 200, 10), Use(HOST, 50, 10), power=300)
    assert shares(found) == {(0, ""): (1000, 1000), (0, "bob"): (1000, 1000), (7, "alice"): (8000, 4000)}
    assert {part.instance: (part.memory_mib, part.energy_j) for part in found} == {
        "": (50, 300), "bob": (200, 300), "alice": (100, 2400),
    }  # fmt: skip


def test_without_a_booking_it_is_of_who_runs_something_and_else_the_hosts() -> None:
    assert shares(after(None, 0.0)) == {(0, ""): (10_000, 0)}
    assert shares(after(None, 0.5, Use(BOB, 1, 50))) == {(0, "bob"): (10_000, 5_000)}
    carol = Whose(0, "carol")
    found = after(None, 0.5, Use(BOB, 1, 0), Use(carol, 1, 40), Use(HOST, 1, 10))
    assert shares(found) == {(0, ""): (1000, 1000), (0, "bob"): (2500, 0), (0, "carol"): (6500, 4000)}


def test_where_nvml_does_not_say_who_was_busy_each_process_counts_the_same() -> None:
    found = after(ALICE, 0.9, Use(ALICE), Use(ALICE), Use(BOB))
    assert shares(found) == {(0, "bob"): (3000, 3000), (7, "alice"): (7000, 6000)}


def test_where_nvml_does_not_say_how_busy_it_is_what_runs_counts() -> None:
    assert shares(after(ALICE, None)) == {(7, "alice"): (10_000, 0)}
    assert shares(after(ALICE, None, Use(ALICE, 1))) == {(7, "alice"): (10_000, 10_000)}
    period = Period(ALICE)
    period.add(AT, 10_000, None, {})
    assert shares(period.parts(PCI, [Use(ALICE, 1)], occupied=0.25)) == {(7, "alice"): (10_000, 2500)}
    assert period.parts(PCI, None) == [], "neither how busy nor who: not known, and not idle"
    period.add(AT, 4000, 0.5, {})
    assert shares(period.parts(PCI, None)) == {(7, "alice"): (4000, 2000)}


def test_a_reading_over_a_minutes_end_is_of_both() -> None:
    period = Period(ALICE)
    period.add(MINUTE + timedelta(seconds=0.5), 2000, 0.5, {"power": 100, "temperature": 61.4, "memory_used": 900})
    before, later = period.parts(PCI, [Use(ALICE, 800)])
    assert (before.minute, before.sampled_ms, before.busy_ms, before.energy_j) == (
        MINUTE - timedelta(minutes=1), 1500, 750, 150,
    )  # fmt: skip
    assert (later.minute, later.sampled_ms, later.busy_ms, later.energy_j) == (MINUTE, 500, 250, 50)
    assert (later.memory_mib, later.temperature) == (900, 61)


def test_a_handover_leaves_nobody_without_their_booking() -> None:
    period = Period(ALICE)
    period.add(AT, 2000, 1.0, {})
    period.entitle(Whose(8, "bob"))
    uses = [Use(period.whose("alice"), 1, 50), Use(period.whose("bob"), 1, 50)]
    assert shares(period.parts(PCI, uses)) == {(7, "alice"): (1000, 1000), (8, "bob"): (1000, 1000)}


def test_it_goes_by_what_the_instances_carry() -> None:
    tagged = DeviceSeen("gpu-0000-01-00-0", PCI, ours=True, node=Node.PRESENT, tag=Tag(7, 9, 1))
    left = DeviceSeen("gpu-0000-01-00-0", PCI, ours=True, node=Node.COPY, configured=False)
    by_hand = DeviceSeen("mine", "0000:02:00.0", ours=False, node=Node.PRESENT)
    instances = [
        InstanceSeen("alice", "running", devices=(tagged,)),
        InstanceSeen("bob", "running", devices=(left, by_hand)),
    ]
    assert owners(HostSeen({one.name: one for one in instances})) == {PCI: ALICE}


PEOPLE = st.sampled_from([HOST, ALICE, BOB, Whose(0, "carol"), Whose(8, "dave")])
USES = st.lists(st.builds(Use, PEOPLE, st.none() | st.integers(0, 80_000), st.none() | st.floats(0, 100)), max_size=12)
READINGS = st.lists(
    st.tuples(st.floats(0.2, 10), st.none() | st.floats(0, 1), st.fixed_dictionaries({"power": st.floats(0, 700)})),
    max_size=20,
)


@given(st.none() | PEOPLE.filter(lambda one: one.instance), READINGS, USES, st.none() | st.floats(0, 1))
def test_it_adds_up(
    owner: Whose | None,
    readings: list[tuple[float, float | None, dict[str, float]]],
    uses: list[Use],
    occupied: float | None,
) -> None:
    period, at = Period(owner), MINUTE
    for seconds, busy, values in readings:
        at += timedelta(seconds=seconds)
        period.add(at, round(1000 * seconds), busy, values)
    parts = period.parts(PCI, uses, occupied)
    keys = [(part.minute, part.booking, part.instance) for part in parts]
    assert len(keys) == len(set(keys))
    assert sum(part.sampled_ms for part in parts) == sum(round(1000 * seconds) for seconds, _busy, _values in readings)
    assert all(0 <= part.busy_ms <= part.sampled_ms for part in parts)
    known = sum(round(1000 * seconds) * busy for seconds, busy, _values in readings if busy is not None)
    unread = sum(round(1000 * seconds) for seconds, busy, _values in readings if busy is None)
    share = (1.0 if uses else 0.0) if occupied is None else occupied
    assert abs(sum(part.busy_ms for part in parts) - known - share * unread) <= 2 * len(readings) + 1
    joules = sum(seconds * values["power"] for seconds, _busy, values in readings)
    assert abs(sum(part.energy_j for part in parts) - joules) <= 2 * len(readings) + 1
    for minute in {part.minute for part in parts}:
        assert sum(part.sampled_ms for part in parts if part.minute == minute) <= 60_001 + len(readings)
