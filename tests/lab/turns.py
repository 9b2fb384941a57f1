"""GPUs that go from one person to the next at whole seconds, on a real LXD, and what was seen of it."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from tests.lab.lab import Lab
from tests.lab.scene import Scene, second_from_now
from tests.lab.watch import Watch

TURN = 2  # seconds of one person's booking, to the next one's
LEAD = 3.0  # seconds until the first begins: time to write them down
PATIENCE = 5.0  # seconds after the last moment within which everything has surely been seen


@dataclass(frozen=True)
class Handover:
    """One GPU's change of hands that was due at `due`, and when it was seen: gone there, here."""

    due: float
    gone: float
    here: float

    @property
    def took(self) -> float:
        """From gone there to here: as long as nobody has it."""
        return self.here - self.gone


@dataclass(frozen=True)
class Seen:
    """A run of handovers. `starts`, `ends`: seconds from each booking's start or end to what its machine had."""

    watch: Watch
    handovers: list[Handover]
    starts: list[float]
    ends: list[float]

    def summary(self) -> str:
        took = sorted(one.took * 1000 for one in self.handovers)
        return (
            f"{len(took)} handovers: gone there to here, ms: p50 {statistics.median(took):.0f}, p95 {p95(took):.0f}, "
            f"max {took[-1]:.0f}; attached {max(self.starts) * 1000:.0f} ms after the start at worst, gone "
            f"{max(self.ends) * 1000:.0f} ms after the end; {len(self.watch.shared)} moments with two; looked every "
            f"{self.watch.pace['p99'] * 1000:.0f} ms (p99, max {self.watch.pace['max'] * 1000:.0f})"
        )


def p95(values: list[float]) -> float:
    """Of 20, the second largest."""
    return sorted(values)[max(0, -(-len(values) * 95 // 100) - 1)]


def in_turns(scene: Scene, host: Lab, gpus: int, handovers: int, *, beside: tuple[tuple[Lab, str], ...] = ()) -> Seen:
    """Each GPU goes back and forth between two people of its own; the GPUs take turns too, so each handover is alone.

    `beside`: other machines to watch meanwhile.
    """
    pairs = [scene.people(host, 2) for _ in range(gpus)]
    with Watch(*((host, name) for pair in pairs for name in pair), *beside) as watch:
        begin = second_from_now(LEAD)
        rows: list[tuple[str, int, int]] = []  # who, which GPU, from when
        for gpu, pair in enumerate(pairs):
            first = begin + gpu * TURN // gpus
            rows += [(pair[turn % 2], gpu, first + turn * TURN) for turn in range(handovers // gpus + 1)]
        for name, gpu, start in rows:
            scene.book(name, host, gpu, start, start + TURN)
        scene.wake(host)
        last = max(start for _name, _gpu, start in rows) + TURN
        watch.until(lambda have: any(have[pair[0]] for pair in pairs), last - begin + LEAD)
        watch.wait_past(last, PATIENCE)
    starts = [watch.came(name, host.minors[gpu], start) - start for name, gpu, start in rows]
    ends = [watch.went(name, host.minors[gpu], start + TURN) - start - TURN for name, gpu, start in rows]
    changes = [
        Handover(start, start + ends[index - 1], start + starts[index])
        for index, (_name, gpu, start) in enumerate(rows)
        if index and rows[index - 1][1] == gpu
    ]
    return Seen(watch, changes, starts, ends)


def in_a_ring(scene: Scene, host: Lab, number: int) -> Seen:
    """Each of so many GPUs goes to the next machine of a ring, all at one second."""
    names = scene.people(host, number)
    with Watch(*((host, name) for name in names)) as watch:
        begin = second_from_now(LEAD)
        due, last = begin + 2 * TURN, begin + 3 * TURN
        for gpu, name in enumerate(names):
            scene.book(name, host, gpu, begin, due)
            scene.book(names[(gpu + 1) % number], host, gpu, due, last)
        scene.wake(host)
        watch.until(lambda have: all(have.values()), 2 * TURN + LEAD)
        watch.wait_past(last, PATIENCE)
    before = [watch.came(name, host.minors[gpu], begin) - begin for gpu, name in enumerate(names)]
    gone = [watch.went(name, host.minors[gpu], due) - due for gpu, name in enumerate(names)]
    here = [watch.came(names[(gpu + 1) % number], host.minors[gpu], due) - due for gpu in range(number)]
    after = [watch.went(names[(gpu + 1) % number], host.minors[gpu], last) - last for gpu in range(number)]
    changes = [Handover(due, due + left, due + came) for left, came in zip(gone, here, strict=True)]
    return Seen(watch, changes, before + here, gone + after)
