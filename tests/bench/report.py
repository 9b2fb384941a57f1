"""Figures with their targets, as a table for people and as JSON for programs."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

HEAD = ("figure", "Berth", "target", "", "others")


@dataclass(frozen=True)
class Figure:
    """One figure: the median of its rounds. `least`, `most`: its target, if any; `others`: what they measured."""

    name: str
    rounds: tuple[float, ...]
    unit: str = ""
    least: float | None = None
    most: float | None = None
    others: str = ""

    @property
    def value(self) -> float:
        return median(self.rounds)

    @property
    def shown(self) -> str:
        return f"{_shown(self.value)} {self.unit}".strip()

    @property
    def target(self) -> str:
        bounds = ((">=", self.least), ("<=", self.most))
        return " ".join(f"{sign} {bound:g} {self.unit}".strip() for sign, bound in bounds if bound is not None)

    @property
    def holds(self) -> bool | None:
        """Whether the target holds; None where there is none."""
        if not self.target:
            return None
        return (self.least is None or self.value >= self.least) and (self.most is None or self.value <= self.most)

    def cells(self) -> tuple[str, ...]:
        verdict = {True: "holds", False: "MISSED", None: ""}[self.holds]
        return self.name, self.shown, self.target, verdict, self.others

    def data(self) -> dict[str, Any]:
        return {**asdict(self), "value": self.value, "target": self.target, "holds": self.holds}


@dataclass(frozen=True)
class Report:
    """What one benchmark found, and in which circumstances. `load`: what else the machine did when it began.
    `pace`: seconds that `pace` took before and after; the same machine takes half as long again when its neighbours are
    at work."""

    name: str
    how: str
    figures: tuple[Figure, ...]
    load: float = 0.0
    pace: tuple[float, ...] = ()
    cores: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))

    @property
    def holds(self) -> bool:
        """Whether no target is missed."""
        return all(figure.holds is not False for figure in self.figures)

    def table(self) -> str:
        rows = [HEAD, *(figure.cells() for figure in self.figures)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        lines.insert(1, "  ".join("-" * width for width in widths))
        cores = f"{self.cores} cores, load average before {self.load:.2f}"
        if self.pace:
            cores += f", ten million additions {' and '.join(f'{one:.2f}' for one in self.pace)} s before and after"
        missed = [figure.name for figure in self.figures if figure.holds is False]
        verdict = f"missed: {', '.join(missed)}" if missed else "every target holds"
        return "\n".join([f"{self.name}: {self.how}", f"({cores}; medians of the rounds)", "", *lines, "", verdict])

    def data(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "how": self.how,
            "cores": self.cores,
            "load": self.load,
            "pace": self.pace,
            "holds": self.holds,
            "figures": [figure.data() for figure in self.figures],
        }


def as_json(reports: Sequence[Report]) -> str:
    return json.dumps([report.data() for report in reports], indent=1)


def pace() -> float:
    """Seconds for ten million additions: how quick this machine is now."""
    began, total = time.perf_counter(), 0
    for number in range(10_000_000):
        total += number
    return time.perf_counter() - began


def after_sleep(seconds: float) -> float:
    """How many times the CPU time a bit of work takes after so long a sleep. Above 2 or so, this machine is one whose
    memory somebody takes away meanwhile (a hypervisor, whose work on it counts as its guest's), and what a program that
    works now and then takes of a core says more of that than of the program."""

    def work() -> float:
        began = time.thread_time()
        for _ in range(50):
            Path("/proc/self/stat").read_bytes()
        return time.thread_time() - began

    hot = min(work() for _ in range(20))
    time.sleep(seconds)
    return work() / hot


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


def _shown(value: float) -> str:
    """Whole where it is whole, else three digits that count."""
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"
