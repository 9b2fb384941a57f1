"""What people ask for and then do with it, made up in the manner of the public traces of shared GPU clusters: requests
in bursts, by day more than by night; lengths with a heavy tail; and six bookings in ten that mostly do nothing.

The same seed always makes the same trace.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import cos, log, pi
from random import Random

IDLE_SHARE = 0.6
PEOPLE = 24
DAY = 24 * 60


@dataclass(frozen=True)
class Request:
    """Minutes: `at` from the trace's beginning; `work` from its booking's start, when its GPUs are busy, `percent` of
    each minute. `held`: memory is held as long as the booking lasts. `answers`: its owner reads messages."""

    at: int
    person: int
    gpus: int
    minutes: int
    work: tuple[tuple[int, int], ...]
    percent: int
    held: bool
    answers: bool

    def busy(self, minute: int) -> bool:
        """Whether its GPUs are at work in that minute."""
        return any(start <= minute < end for start, end in self.work)

    def left(self, minute: int) -> int:
        """GPU-minutes of work from then on."""
        return self.gpus * sum(max(0, end - max(start, minute)) for start, end in self.work)


def requests(seed: int, days: float, a_day: float) -> list[Request]:
    """About `a_day` requests on each day, in order."""
    random = Random(seed)
    found: list[Request] = []
    for at in _arrivals(random, int(days * DAY), a_day):
        person = random.randrange(PEOPLE)
        burst = min(5, int(random.paretovariate(1.6)))  # a sweep: some at once, of one person
        found += [_request(random, at + 2 * number, person) for number in range(burst)]
    return sorted(found, key=lambda one: one.at)


def _arrivals(random: Random, minutes: int, a_day: float) -> Iterator[int]:
    """Most of them at three in the afternoon, a tenth as many at three at night."""
    each = a_day / 1.75 / DAY  # bursts a minute: so many requests are in one on average
    at = 0.0
    while True:
        at += random.expovariate(2 * each)
        if at >= minutes:
            return
        if random.random() < 0.5 * (1 - 0.82 * cos(2 * pi * (at - 3 * 60) / DAY)):
            yield int(at)


def _request(random: Random, at: int, person: int) -> Request:
    minutes = 60 * min(36, max(1, round(random.lognormvariate(log(5), 0.9))))
    idle = random.random() < IDLE_SHARE
    return Request(
        at=at,
        person=person,
        gpus=random.choices((1, 2, 4), (0.7, 0.2, 0.1))[0],
        minutes=minutes,
        work=_little(random, minutes) if idle else _much(random, minutes),
        percent=random.randint(60, 98),
        held=random.random() < 0.35,
        answers=random.random() < 0.6,
    )


def _little(random: Random, minutes: int) -> tuple[tuple[int, int], ...]:
    """One in three never runs anything; the others a short job at the beginning."""
    if random.random() < 1 / 3:
        return ()
    start = int(random.expovariate(1 / 15))
    return ((start, min(start + max(1, int(random.lognormvariate(log(12), 1.2))), minutes // 2)),)


def _much(random: Random, minutes: int) -> tuple[tuple[int, int], ...]:
    """Job after job until shortly before the end; what lies between is mostly short, and now and then a night."""
    found, at, end = [], int(random.expovariate(1 / 10)), int(minutes * random.uniform(0.85, 1))
    while at < end:
        until = min(end, at + max(2, int(random.lognormvariate(log(90), 1))))
        found.append((at, until))
        at = until + max(1, int(random.lognormvariate(log(8), 1.1)))
    return tuple(found)
