"""A step: look whether it is so, say what would make it so, do that, and look again."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, runtime_checkable

from app.drivers.system import System


class Trouble(Exception):
    """A step cannot be done: why, and what to do about it."""

    def __init__(self, why: str, todo: str) -> None:
        super().__init__(why)
        self.why, self.todo = why, todo


@dataclass(frozen=True)
class Command:
    """A program to run. `more`: of its environment, and never shown: it may hold passwords."""

    argv: tuple[str, ...]
    limit: float = 120
    more: Mapping[str, str] = field(default_factory=dict, repr=False)

    def words(self) -> str:
        """As one would type it."""
        return shlex.join(self.argv)

    def do(self, system: System) -> None:
        """Run it."""
        done = system.run(self.argv, self.limit, self.more)
        if not done.ok:
            said = (done.complaint or done.text).strip()[-600:]
            todo = "Mend that and run this again: what is done by then is left as it is."
            raise Trouble(f"{self.words()}: {said or f'status {done.status}'}", todo)


@dataclass(frozen=True)
class File:
    """A file to write."""

    path: str
    text: str
    mode: int = 0o644

    def words(self) -> str:
        """That it is written."""
        return f"write {self.path}"

    def do(self, system: System) -> None:
        """Write it."""
        try:
            system.write(self.path, self.text, self.mode)
        except OSError as error:
            raise Trouble(
                f"{self.path} cannot be written: {error.strerror}", "Is this root, and the disk full?"
            ) from error


Action = Command | File


class Step(Protocol):
    """One thing that has to be so."""

    @property
    def title(self) -> str:
        """What it is about."""

    def look(self, system: System) -> str:
        """How it is so already; "" if it is not. Raises Trouble where it can neither be so nor be done."""

    def actions(self, system: System) -> list[Action]:
        """What would make it so. Raises Trouble."""


@runtime_checkable
class Choosing(Protocol):
    """A step that chooses between ways in which it could be so."""

    def notes(self, system: System) -> tuple[str, ...]:
        """Before it is done: which one, why, and how to get another. Raises Trouble."""


class State(StrEnum):
    """What became of a step."""

    ALREADY = "already so"
    PLANNED = "to do"
    DONE = "done"
    FAILED = "failed"
    LEFT = "not done"


@dataclass(frozen=True)
class Outcome:
    """A step, what became of it, and in words: how it is, what would be run, or why not; `todo` after a failure.
    `notes`: what was chosen, and why."""

    title: str
    state: State
    lines: tuple[str, ...] = ()
    todo: str = ""
    notes: tuple[str, ...] = ()


def go(steps: Iterable[Step], system: System, *, really: bool) -> Iterator[Outcome]:
    """Each step's outcome as it comes. What fails keeps what follows from being done, though not from being planned."""
    failed = False
    for step in steps:
        if failed and really:
            yield Outcome(step.title, State.LEFT)
            continue
        try:
            yield _one(step, system, really=really)
        except Trouble as trouble:
            failed = True
            yield Outcome(step.title, State.FAILED, (trouble.why,), trouble.todo)


def _one(step: Step, system: System, *, really: bool) -> Outcome:
    if so := step.look(system):
        return Outcome(step.title, State.ALREADY, (so,))
    actions = step.actions(system)
    notes = step.notes(system) if isinstance(step, Choosing) else ()
    if not really:
        return Outcome(step.title, State.PLANNED, tuple(action.words() for action in actions), notes=notes)
    for action in actions:
        action.do(system)
    if so := step.look(system):
        return Outcome(step.title, State.DONE, (so,), notes=notes)
    raise Trouble("everything was run, and it is not so", "Look at what it says by hand: berth host init prints it.")
