"""How soon after its end a GPU is taken from who does not let go of it, and the next one has it: on a real LXD."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.bench.report import Figure, Report
from tests.lab import evictions
from tests.lab.clinging import ToldApart
from tests.lab.evictions import GPUS, Seen
from tests.lab.fixtures import why_no_lab
from tests.lab.image import image
from tests.lab.lab import new_directory
from tests.lab.turns import p95

MOST_FENCED, MOST_FENCED_ALWAYS = 300, 1000  # ms until it cannot be opened any more: of 19 in 20, of each
MOST_HERE, MOST_ALL_HERE = 1000, 2000  # ms until the next one can open it: of 19 in 20, of eight at once
WAYS = {"in sight": False, "hidden, as in a snap": True}
HOW = (
    f"real machines on an LXD with {GPUS} emulated GPUs, a process in each that keeps what it can open and is deaf to "
    "all but SIGKILL; one eviction a second, then all at one second, each with somebody else's booking right behind. "
    "Looked at every few milliseconds from inside. LXD's directory of devices is in sight, or hidden"
)


def measure() -> Report:
    """A lab of its own for each of the two ways, one after the other. Raises RuntimeError where there can be none."""
    if why := why_no_lab():
        raise RuntimeError(f"no lab here: {why}")
    image()
    folder = new_directory()
    try:
        figures = [figure for way, snap in WAYS.items() for figure in of_way(way, _seen(folder / str(snap), snap=snap))]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Report("evictions", HOW, tuple(figures))


def _seen(directory: Path, *, snap: bool) -> Seen:
    with ToldApart(directory, GPUS, snap=snap) as host:
        return evictions.evict(host)


def of_way(way: str, seen: Seen) -> list[Figure]:
    """What a run found, in ms from the end."""
    late, wait, lates, waits = (
        [1000 * second for second in found(chains)]
        for chains in (seen.turns, seen.ring)
        for found in (seen.lates, seen.waits)
    )
    one, all_ = f"{way}, one at a time", f"{way}, {GPUS} at once"
    return [
        Figure(f"{one}: last opened, p95", (max(0, p95(late)),), "ms", most=MOST_FENCED),
        Figure(f"{one}: last opened, worst", (max(0, *late),), "ms", most=MOST_FENCED_ALWAYS),
        Figure(f"{one}: next has it, p95", (p95(wait),), "ms", most=MOST_HERE),
        Figure(f"{all_}: last opened, worst", (max(0, *lates),), "ms", most=MOST_FENCED_ALWAYS),
        Figure(f"{all_}: next has it, worst", (max(waits),), "ms", most=MOST_ALL_HERE),
    ]
