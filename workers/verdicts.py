"""What became of a GPU that is to be free."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from app.drivers.kernel import Holder


class State(StrEnum):
    """Whether a GPU can be given to somebody."""

    FREE = "free"  # seen: no node, no holder, nothing that could not be looked at
    WAITING = "waiting"  # what holds it has been asked to end, and has time until then
    HELD = "held"  # it should be free, and is not


@dataclass(frozen=True)
class Verdict:
    """A GPU's state after this pass. `instances`: where it is held. `ended`: whom this pass ended for it.

    `stopped`: the instance that was stopped for it. `quarantine`: it could not be proven free in time."""

    state: State
    text: str = ""
    at: datetime | None = None
    until: datetime | None = None
    instances: tuple[str, ...] = ()
    holders: tuple[Holder, ...] = ()
    ended: tuple[Holder, ...] = ()
    stopped: str = ""
    quarantine: bool = False
