"""GPUs are taken from people who do not let go of them, one at a time and eight at once: no two have the same, and all
of it is written down. How fast is for `tests.bench evictions`: a machine may be slow, but not unsafe."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench.evictions import of_way
from tests.lab import clinging, evictions
from tests.lab.clinging import ToldApart
from tests.lab.evictions import AFTER, GPUS, GRACE, Seen

pytestmark = [pytest.mark.lab, pytest.mark.timed]

GONE = AFTER - 0.5  # seconds after the end by which nobody has it, on the slowest machine


@pytest.fixture(scope="module", params=[False, True], ids=["in-sight", "snap"])
def host(lab_directory: Path, request: pytest.FixtureRequest) -> Iterator[ToldApart]:
    """LXD's device directory is in sight, or hidden as in LXD from a snap."""
    with ToldApart(lab_directory / f"evictions-{request.param}", GPUS, snap=request.param) as made:
        yield made


@pytest.fixture(scope="module")
def seen(host: ToldApart) -> Seen:
    return evictions.evict(host)


def test_one_at_a_time(seen: Seen, capsys: pytest.CaptureFixture[str]) -> None:
    lates = seen.lates(seen.turns)
    with capsys.disabled():
        print(f"\n  {len(lates)} evictions: {evictions.summary(seen, seen.turns)}")
    assert len(lates) == len(seen.waits(seen.turns)) == seen.evictions
    assert [one for chain in seen.turns for one in chain if not seen.had(one)] == []
    assert max(lates) <= GONE


def test_eight_in_the_same_second(seen: Seen, capsys: pytest.CaptureFixture[str]) -> None:
    lates = seen.lates(seen.ring)
    with capsys.disabled():
        print(f"\n  eight at once: {evictions.summary(seen, seen.ring)}")
    assert len(lates) == len(seen.waits(seen.ring)) == GPUS
    assert [one for chain in seen.ring for one in chain if not seen.had(one)] == []
    assert max(lates) <= GONE


def test_the_benchmark_counts_them(seen: Seen) -> None:
    figures = {figure.name: figure for figure in of_way("here", seen)}
    assert figures["here, one at a time: last opened, worst"].value == 1000 * max(0, *seen.lates(seen.turns))
    assert figures["here, 8 at once: next has it, worst"].value == 1000 * max(seen.waits(seen.ring))
    assert sorted(figure.most for figure in figures.values() if figure.most) == [300, 1000, 1000, 1000, 2000]


def test_no_two_have_one_at_any_moment(seen: Seen) -> None:
    assert clinging.shared(seen.spans) == []


def test_every_one_that_held_it_is_ended_and_all_is_written_once(seen: Seen) -> None:
    for place, one in enumerate(seen.booked):
        about = f"{one}: {seen.told_of(place)}; {seen.spans_of(one)}"
        for what in ("hold", "settle", "gpu.attached", "gpu.detached", "booking.settled"):
            assert seen.books[what, place] == 1, f"{what} {about}"
        assert seen.books["gpu.process_ended", place] >= (1 if seen.held(one) else 0), about
        assert seen.books["gpu.intruder", place] == 0, about
    assert sum(map(seen.held, seen.booked)) >= 0.9 * len(seen.booked), "too few held their GPU to judge by"
    last = max(span.end for span in seen.spans if span.how == "held")
    assert last <= max(one.end for one in seen.booked) + 2 * GRACE + 1
