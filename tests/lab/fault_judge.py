"""What may not happen in a fault run. Pure: spans of what was seen and the bookings' windows in, complaints out.

What counts as having a GPU: at that moment root in the instance can open one of its nodes (the kernel says yes: a node
that is still shown, but fenced by the cgroup or without permissions, is not had), or one of its processes has it open,
O_PATH included, or mapped. Right is who has a booking of it at that moment. Then:

1. Never do two instances have one GPU. One thing nobody on the host can prevent: LXD itself plugs in what is in the
   configuration of an instance that is started, and whoever is root on the host can start a copy, a restored snapshot
   or one with a device added by hand while somebody else has that GPU. That is counted apart, and only if it began with
   such a start and is over within the bounds of 2, for which the database is not needed. A device that is added to an
   instance which runs is no excuse.
2. Nobody has a GPU without right for longer than the bounds. Where the agent, LXD or the database was away within
   that time, it is counted from their being back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations

GRACE = 1  # seconds from asking to killing, as the run sets it
TICK = 1  # seconds between two passes at most, as the run sets it
SLOW_PASS = 5.0  # seconds: a pass waits 4 for GPUs that LXD keeps it waiting for, and looks at LXD twice
KILLING = 2.0  # seconds: looks at all processes, and their deaths, on a busy machine of two cores
CLOSED = TICK + SLOW_PASS  # until nothing can be opened any more: the pass that fences comes after a slow one
LET_GO = GRACE + CLOSED + KILLING  # until what held it at its booking's end is gone
INTRUDED = CLOSED + 4 + 2 + KILLING  # and what never had a right to it: found within 4 s, asked, killed 2 s later
STARTING = 1.0  # seconds of an instance's start: what it has then came along with it
BY_HAND = 10.0  # seconds between what root on the host did to an instance and its start, to be an excuse


@dataclass(frozen=True)
class Span:
    """From `begin` to `end` it was seen, again and again, that the machine had the GPU. `boot`: its last start before.

    `how`: "open" (it could be opened) or "held" (by a process)."""

    machine: str
    minor: int
    how: str
    begin: float
    end: float
    boot: float


@dataclass(frozen=True)
class Right:
    """An allocation as it was in the database from `since` on, until another of the same number says otherwise."""

    allocation: int
    machine: str
    minor: int
    start: float
    end: float
    since: float


@dataclass(frozen=True)
class Outage:
    """Something was killed at `begin`, and all was back at `end`."""

    what: str
    begin: float
    end: float


@dataclass(frozen=True)
class ByHand:
    """Root on the host did something to the instance after which it may have GPUs when it starts."""

    at: float
    machine: str
    what: str


@dataclass(frozen=True)
class Facts:
    """All that was seen."""

    spans: Sequence[Span] = ()
    rights: Sequence[Right] = ()
    outages: Sequence[Outage] = ()
    by_hand: Sequence[ByHand] = ()
    zero: float = 0.0


@dataclass
class Verdict:
    """What was found: complaints, each once, and figures of what was not to be complained of."""

    complaints: list[str] = field(default_factory=list)
    excused: list[float] = field(default_factory=list)  # seconds with two, each time that root on the host made it so
    longest: dict[str, float] = field(default_factory=dict)  # seconds without right, by kind


def judge(facts: Facts) -> Verdict:
    """All complaints that 1 and 2 give."""
    verdict = Verdict()
    windows = _windows(facts.rights)
    for span in facts.spans:
        _overtime(span, windows.get((span.machine, span.minor), []), facts, verdict)
    for one, other in combinations(sorted(facts.spans, key=lambda span: span.begin), 2):
        if one.minor == other.minor and one.machine != other.machine:
            begin, end = max(one.begin, other.begin), min(one.end, other.end)
            if begin <= end:
                _two(one, other, (begin, end), windows, facts, verdict)
    return verdict


def _windows(rights: Iterable[Right]) -> dict[tuple[str, int], list[tuple[float, float]]]:
    """By machine and GPU, when it was its owner's: each version of an allocation counts until the next one's."""
    versions: dict[int, list[Right]] = {}
    for right in sorted(rights, key=lambda right: right.since):
        versions.setdefault(right.allocation, []).append(right)
    found: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for each in versions.values():
        for place, right in enumerate(each):
            begin = max(right.start, right.since if place else 0.0)
            end = min(right.end, each[place + 1].since if place + 1 < len(each) else right.end)
            if begin < end:
                found.setdefault((right.machine, right.minor), []).append((begin, end))
    return {key: sorted(spans) for key, spans in found.items()}


def _without(begin: float, end: float, windows: Iterable[tuple[float, float]]) -> list[tuple[float, float, bool]]:
    """What is left of a span outside the windows, and whether it followed one of them."""
    left, after = [], False
    for start, stop in windows:
        if stop < begin or start > end:
            continue
        if start > begin:
            left.append((begin, start, after))
        begin, after = max(begin, stop), True
    return [*left, (begin, end, after)] if begin < end else left


def _overtime(span: Span, windows: list[tuple[float, float]], facts: Facts, verdict: Verdict) -> None:
    for begin, end, after in _without(span.begin, span.end, windows):
        had = after or any(stop >= begin - 1 for start, stop in windows if start < begin)
        kind = "open" if span.how == "open" else "held on" if had else "intruded"
        bound = {"open": CLOSED, "held on": LET_GO, "intruded": INTRUDED}[kind]
        limit = _put_off(begin, bound, facts.outages)
        if limit == begin + bound:
            verdict.longest[kind] = max(verdict.longest.get(kind, 0.0), end - begin)
        if end > limit:
            verdict.complaints.append(
                f"{span.machine} had GPU {span.minor} without a booking ({kind}) "
                f"from {begin - facts.zero:.2f} to {end - facts.zero:.2f}, {limit - facts.zero:.2f} at the latest"
            )


def _put_off(begin: float, bound: float, outages: Iterable[Outage]) -> float:
    """When a bound that runs from `begin` is over: anew from the end of each outage within it."""
    limit = begin + bound
    for outage in sorted(outages, key=lambda outage: outage.begin):
        if outage.begin <= limit and outage.end >= begin:
            limit = max(limit, outage.end + bound)
    return limit


def _two(
    one: Span,
    other: Span,
    both: tuple[float, float],
    windows: dict[tuple[str, int], list[tuple[float, float]]],
    facts: Facts,
    verdict: Verdict,
) -> None:
    """`one` had it first. Root on the host made it so if the second, or the one without right, had it by that root."""
    begin, end = both
    for span in (one, other):
        rightly = span is one and any(
            start <= begin < stop for start, stop in windows.get((span.machine, span.minor), ())
        )
        if not rightly and _excused(span, facts) and end <= _shut_by(span, begin, facts):
            verdict.excused.append(end - begin)
            return
    verdict.complaints.append(
        f"{one.machine} ({one.how}) and {other.machine} ({other.how}) both had GPU {one.minor} "
        f"from {begin - facts.zero:.3f} to {end - facts.zero:.3f}"
    )


def _shut_by(span: Span, begin: float, facts: Facts) -> float:
    """Until when that may last. The database is not needed to see who is the second: the agent was told before."""
    away = [outage for outage in facts.outages if outage.what != "postgres"]
    return _put_off(begin, CLOSED if span.how == "open" else INTRUDED, away)


def _excused(span: Span, facts: Facts) -> bool:
    """Whether it came along with the start of an instance, because of what root on the host did before: it could be
    opened at once, or is held since then."""
    return any(
        _came_along(one, facts) and one.begin <= span.begin <= one.end + STARTING
        for one in ([span] if span.how == "open" else facts.spans)
        if one.how == "open" and (one.machine, one.minor, one.boot) == (span.machine, span.minor, span.boot)
    )


def _came_along(span: Span, facts: Facts) -> bool:
    return span.begin <= _put_off(span.boot, STARTING, facts.outages) and any(
        done.machine == span.machine
        and done.at <= span.begin
        and span.boot <= _put_off(done.at, BY_HAND, facts.outages)
        for done in facts.by_hand
    )
