"""The judge of the fault runs: what it complains of, and what it lets pass."""

from __future__ import annotations

import pytest

from tests.lab.fault_judge import (
    BY_HAND,
    CLOSED,
    INTRUDED,
    LET_GO,
    STARTING,
    ByHand,
    Facts,
    Outage,
    Right,
    Span,
    judge,
)

A_RIGHT = Right(1, "a", 7, 100, 110, since=99)
B_RIGHT = Right(2, "b", 7, 110, 120, since=99)


def complaints(*spans: Span, **more: object) -> list[str]:
    return judge(Facts(spans, **{"rights": (A_RIGHT, B_RIGHT), **more})).complaints  # type: ignore[arg-type]


def test_a_handover_is_nothing_to_complain_of() -> None:
    assert complaints(Span("a", 7, "open", 100.1, 110.05, 50), Span("b", 7, "open", 110.2, 120.1, 50)) == []


@pytest.mark.parametrize("how", ["open", "held"])
@pytest.mark.parametrize("other", ["open", "held"])
def test_two_have_one_gpu_at_one_moment(how: str, other: str) -> None:
    (text,) = complaints(Span("a", 7, how, 100.1, 110.21, 50), Span("b", 7, other, 110.2, 119, 50))
    assert "a " in text
    assert "both had GPU 7" in text


def test_another_gpu_is_another_gpu() -> None:
    assert complaints(Span("a", 7, "open", 100, 110, 50), Span("b", 8, "open", 105, 106, 50)) == []


def test_a_moment_within_anothers_span_is_enough() -> None:
    assert len(complaints(Span("a", 7, "open", 100, 110, 50), Span("b", 7, "open", 105, 105, 50))) == 1


@pytest.mark.parametrize(("how", "bound"), [("open", CLOSED), ("held", LET_GO)])
def test_nobody_has_it_long_after_the_end(how: str, bound: float) -> None:
    assert complaints(Span("a", 7, how, 101, 110 + bound, 50), rights=(A_RIGHT,)) == []
    (text,) = complaints(Span("a", 7, how, 101, 110.1 + bound, 50), rights=(A_RIGHT,))
    assert "a had GPU 7 without a booking" in text


def test_who_never_had_a_right_has_a_bound_too() -> None:
    assert complaints(Span("c", 7, "held", 50, 50 + INTRUDED, 50), rights=()) == []
    assert len(complaints(Span("c", 7, "held", 50, 50.1 + INTRUDED, 50), rights=())) == 1


def test_an_end_that_was_moved_counts_from_when_it_was_known() -> None:
    earlier = Right(1, "a", 7, 100, 102, since=104)
    assert complaints(Span("a", 7, "open", 100, 104 + CLOSED, 50), rights=(A_RIGHT, earlier)) == []
    assert len(complaints(Span("a", 7, "open", 100, 104.1 + CLOSED, 50), rights=(A_RIGHT, earlier))) == 1


def test_what_was_away_puts_it_off_until_it_is_back() -> None:
    away = Outage("agent", 111, 115)
    assert complaints(Span("a", 7, "open", 100, 115 + CLOSED, 50), rights=(A_RIGHT,), outages=(away,)) == []
    assert len(complaints(Span("a", 7, "open", 100, 115.1 + CLOSED, 50), rights=(A_RIGHT,), outages=(away,))) == 1
    before = Outage("agent", 90, 95)
    assert len(complaints(Span("a", 7, "open", 100, 110.1 + CLOSED, 50), rights=(A_RIGHT,), outages=(before,))) == 1


def test_a_copy_that_was_started_by_hand_is_counted_apart() -> None:
    done = ByHand(103, "c", "copied")
    found = judge(
        Facts((Span("a", 7, "open", 100, 110, 50), Span("c", 7, "open", 105, 106, 104.9)), (A_RIGHT,), by_hand=(done,))
    )
    assert (found.complaints, found.excused) == ([], [1])


def test_root_may_have_given_it_to_who_comes_next_while_the_agent_was_away() -> None:
    late, early = Span("a", 7, "open", 100, 112, 50), Span("b", 7, "open", 111, 119, 110.5)
    away = Outage("agent", 109, 111.5)
    assert complaints(late, early, outages=(away,), by_hand=(ByHand(110.9, "b", "added"),)) == []
    assert len(complaints(late, early, outages=(away,))) == 1


def test_not_for_long_even_without_the_database() -> None:
    spans = (Span("a", 7, "open", 100, 200, 50), Span("c", 7, "open", 105, 105.1 + CLOSED, 104.9))
    done = {"rights": (Right(1, "a", 7, 100, 200, since=99),), "by_hand": (ByHand(103, "c", "copied"),)}
    assert len(complaints(*spans, outages=(Outage("postgres", 104, 150),), **done)) == 1
    assert complaints(*spans, outages=(Outage("agent", 104, 150),), **done) == []


def test_so_is_what_was_held_since_that_start() -> None:
    done = ByHand(103, "c", "copied")
    had, opened = Span("a", 7, "open", 100, 110, 50), Span("c", 7, "open", 105, 105.3, 104.9)
    assert complaints(had, opened, Span("c", 7, "held", 105.2, 108, 104.9), rights=(A_RIGHT,), by_hand=(done,)) == []
    assert len(complaints(had, Span("c", 7, "held", 105.2, 108, 104.9), rights=(A_RIGHT,), by_hand=(done,))) == 1


@pytest.mark.parametrize(
    ("done", "boot"),
    [
        (ByHand(104, "c", "added"), 105 - STARTING - 0.1),  # it ran, and should have been fenced
        (ByHand(105 - BY_HAND - 2, "c", "copied"), 105 - 0.1),  # long before its start: it should have been taken out
        (ByHand(105.5, "c", "added"), 104.9),  # afterwards
        (ByHand(104, "d", "copied"), 104.9),  # another one
    ],
)
def test_no_excuse(done: ByHand, boot: float) -> None:
    spans = (Span("a", 7, "open", 100, 110, 50), Span("c", 7, "open", 105, 106, boot))
    assert len(complaints(*spans, rights=(A_RIGHT,), by_hand=(done,))) == 1


def test_a_meddled_with_machine_with_a_right_is_no_excuse_for_another() -> None:
    spans = (Span("a", 7, "open", 104, 110, 103.9), Span("b", 7, "held", 105, 106, 50))
    assert len(complaints(*spans, rights=(A_RIGHT,), by_hand=(ByHand(103, "a", "restored"),))) == 1
