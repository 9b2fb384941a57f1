"""The moves of a fault run, chosen by a seed alone.

A step names people, GPUs and bookings by numbers; which ones these are is found when it is carried out, so that any
part of a run is a run too.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

PAUSES = (0.0, 0.1, 0.2, 0.4, 0.6)  # seconds before a step
BETWEEN_KILLS = 12  # steps
ORDERS = ("open", "open", "deaf", "path", "greedy")

# How often each verb comes, and how many numbers it takes below which limits.
VERBS: dict[str, tuple[int, tuple[int, ...]]] = {
    "book": (20, (5, 4, 4, 5)),  # who, GPU, seconds until, seconds long
    "book_two": (4, (5, 4, 3, 4)),
    "relay": (10, (5, 5, 4, 3, 3)),  # who, who next, GPU, seconds until, seconds each
    "end": (5, (8,)),
    "shorten": (3, (8,)),
    "extend": (4, (8, 3)),
    "cancel": (2, (8,)),
    "stop": (2, (5, 2)),  # who, hard
    "restart": (3, (5, 2)),
    "freeze": (3, (5,)),
    "wake_up": (9, (5,)),
    "snapshot": (3, (5,)),
    "restore": (3, (5,)),
    "copy": (2, (5,)),
    "remove_copy": (1, ()),
    "add_ours": (2, (5, 4)),
    "add_foreign": (2, (5, 4)),
    "remove_foreign": (4, ()),
    "remove_ours": (3, (5, 4)),
    "hold": (12, (5, len(ORDERS))),
    "keep": (3, (5,)),
    "wait": (10, ()),
    "kill": (6, (8,)),
}
KILLED = ("agent", "agent", "agent", "valkey", "postgres", "postgres", "lxd", "lxd")


@dataclass(frozen=True)
class Step:
    """A verb with its numbers, so many seconds after the step before."""

    verb: str
    numbers: tuple[int, ...]
    pause: float


@dataclass
class Done:
    """A step as it was carried out."""

    step: Step
    at: float
    what: str
    came: str = "…"

    def line(self, zero: float) -> str:
        return f"{self.at - zero:8.2f}  {self.what}: {self.came}"


def chosen(seed: int, number: int) -> list[Step]:
    """The steps of a seed: the same ones each time, and those of a shorter run are the beginning of a longer one's."""
    dice = random.Random(seed)
    weights = [weight for weight, _limits in VERBS.values()]
    steps: list[Step] = []
    calm = BETWEEN_KILLS
    while len(steps) < number:
        verb = dice.choices(list(VERBS), weights)[0]
        numbers = tuple(dice.randrange(limit) for limit in VERBS[verb][1])
        pause = dice.choice(PAUSES)
        calm += 1
        if verb != "kill" or calm > BETWEEN_KILLS:
            steps.append(Step(verb, numbers, pause))
            calm = 0 if verb == "kill" else calm
    return steps
