"""`python -m tests.bench NAME [--json]`: figures beside their targets. Exit status 1 if a target is missed."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.bench import create, drag, evictions, find, live, replay, reports, sampler, sweep, week
from tests.bench.installation import installation
from tests.bench.report import Report, as_json, pace
from workers.locks import Held, exclusive

# Where `make run` keeps its data too: /tmp may be memory, on which a durable commit costs nothing.
DATA = Path(__file__).resolve().parents[2] / "var" / "bench"
CORES = 2


def run_create() -> Report:
    """creating bookings over the API"""
    with installation(DATA / "create") as settings:
        return create.measure(settings)


def run_week() -> Report:
    """the calendar's week, with 1,000, 100,000 and 1,000,000 bookings stored"""
    with ExitStack() as stack:
        return week.measure([stack.enter_context(installation(DATA / f"week-{size}")) for size in week.SIZES])


def run_drag() -> Report:
    """a drag over the calendar's full week to the form, in Chromium"""
    with installation(DATA / "drag") as settings:
        return drag.measure(settings)


def run_find() -> Report:
    """a slot found among 100,000 bookings to come"""
    with installation(DATA / "find") as settings:
        return find.measure(settings)


def run_reports() -> Report:
    """reports over a year of minutes of 64 GPUs, and what those weigh (some minutes to fill, 4 GB of disk)"""
    with installation(DATA / "reports") as settings:
        return reports.measure(settings)


def run_live() -> Report:
    """the live GPUs, with a year of their minutes stored"""
    with installation(DATA / "live") as settings:
        return live.measure(settings)


def run_sweep() -> Report:
    """a look over 2,000 processes for those who hold one of 8 GPUs"""
    return sweep.measure()


def run_evictions() -> Report:
    """GPUs taken from who does not let go of them, on a real LXD, as root; some minutes"""
    return evictions.measure()


def run_sampler() -> Report:
    """reading 8 GPUs with 40 processes, and a day of it"""
    with installation(DATA / "sampler") as settings, TemporaryDirectory() as folder:
        return sampler.measure(settings, Path(folder))


def run_replay() -> Report:
    """a lab's made-up days, with and without idle bookings given back and the waiting list (some minutes)"""
    with installation(DATA / "replay") as settings:
        return replay.measure(settings)


BENCHES: dict[str, Callable[[], Report]] = {
    "create": run_create,
    "week": run_week,
    "drag": run_drag,
    "find": run_find,
    "reports": run_reports,
    "live": run_live,
    "sweep": run_sweep,
    "evictions": run_evictions,
    "sampler": run_sampler,
    "replay": run_replay,
}


def main(arguments: Sequence[str]) -> int:
    names = "; ".join([*(f"{name}: {run.__doc__}" for name, run in BENCHES.items()), "all: each of them"])
    parser = ArgumentParser("python -m tests.bench", description=f"{__doc__} NAME is one of: {names}.")
    parser.add_argument("name", metavar="NAME", choices=[*BENCHES, "all"])
    parser.add_argument("--json", action="store_true", help="the JSON alone, without the table before it")
    chosen = parser.parse_args(arguments)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])  # for us and whatever we start
    try:
        with exclusive(DATA.with_suffix(".lock"), wait=False, note=f"process {os.getpid()}"):
            return tell([chosen.name] if chosen.name in BENCHES else list(BENCHES), only_json=chosen.json)
    except Held as holder:
        print(f"Another benchmark runs ({holder}); side by side both would be slow.", file=sys.stderr)
        return 1


def tell(names: Sequence[str], *, only_json: bool) -> int:
    """Run and print them."""
    reports = []
    for name in names:
        load, before = os.getloadavg()[0], pace()
        reports.append(replace(BENCHES[name](), load=load, pace=(before, pace())))
        if not only_json:
            print(reports[-1].table(), end="\n\n", flush=True)
    print(as_json(reports), flush=True)
    return 0 if all(report.holds for report in reports) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
