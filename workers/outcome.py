"""What came of a plan, and of what passes before it had begun or could not write down."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from app.drivers.kernel import Holder
from app.services.plan import Attach, Detach, Ending, Trouble
from app.services.recording import Late
from workers.verdicts import State, Verdict
from workers.watch import Watch

MOST, MOST_TIMES = 1000, 200  # processes that are remembered of one time, and times, until it can be written down

Errors = dict[int, tuple[Trouble, str]]
"""By allocation id, why its GPU was not plugged in."""


@dataclass(frozen=True)
class Ended:
    """Whom a pass ended for a GPU. `ending`: whose time with it was over; None where it was nobody's."""

    pci: str
    holders: tuple[Holder, ...]
    ending: Ending | None


@dataclass
class Outcome:
    """What came of a plan. `verdicts`: by PCI address, for each GPU that was to be free or to change hands."""

    errors: Errors = field(default_factory=dict)
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    asked: set[int] = field(default_factory=set)  # allocations whose holders were asked to end ahead of time
    intruded: set[str] = field(default_factory=set)  # GPUs that somebody held who had no booking
    trouble: str = ""
    late: list[Late] = field(default_factory=list)  # what this pass wrote down as attached or free
    belated: list[Detach | Attach] = field(default_factory=list)  # begun by passes before, and done after them
    earlier: list[Ended] = field(default_factory=list)  # by passes before, and not on record

    def asked_of(self, watch: Watch) -> set[int]:
        """The allocations whose holders were asked to end, or ended."""
        ended = {pci for pci, verdict in self.verdicts.items() if verdict.ended or verdict.state == State.WAITING}
        endings = [watch.endings[pci] for pci in ended & watch.endings.keys()]
        endings += [one.ending for one in self.earlier if one.ending is not None]
        return self.asked | {ending.tag.allocation_id for ending in endings}

    def blind(self) -> Outcome:
        """As it stands where LXD cannot be looked at: nothing is proven free."""
        waiting = {
            pci: replace(one, state=State.WAITING) for pci, one in self.verdicts.items() if one.state == State.FREE
        }
        return replace(self, verdicts=self.verdicts | waiting)


class Unrecorded:
    """Whom passes ended, what they stopped and what they gave up, until it is on record: of a GPU that a pass did not
    wait for, or because there was no database to write it into."""

    def __init__(self) -> None:
        self._ended: list[Ended] = []
        self._verdicts: dict[str, Verdict] = {}

    def add(self, pci: str, verdict: Verdict, ending: Ending | None) -> None:
        """Remember what is worth it. `ending`: whose time with the GPU was over."""
        if verdict.ended:
            self._remember(Ended(pci, verdict.ended[:MOST], ending))
        found = _with_earlier(self._verdicts.pop(pci, Verdict(State.WAITING)), replace(verdict, ended=()))
        if found.stopped or found.quarantine:
            self._verdicts[pci] = found

    def keep(self, watch: Watch, outcome: Outcome) -> None:
        """A pass's, that could not be written down."""
        for one in outcome.earlier:
            self._remember(one)
        for pci, verdict in outcome.verdicts.items():
            self.add(pci, verdict, watch.endings.get(pci))

    def bring_up(self, outcome: Outcome) -> None:
        """Have it written down with what this pass found."""
        for pci, verdict in self._verdicts.items():
            outcome.verdicts[pci] = _with_earlier(verdict, outcome.verdicts.get(pci, Verdict(State.WAITING)))
        outcome.earlier = self._ended
        self._verdicts, self._ended = {}, []

    def _remember(self, one: Ended) -> None:
        self._ended = [*self._ended, one][-MOST_TIMES:]


def _with_earlier(old: Verdict, now: Verdict) -> Verdict:
    """What an earlier pass stopped has to be on record, and that it could not prove the GPU free, unless this one has.
    That it is free, only a new look can tell."""
    held = old.quarantine and now.state != State.FREE
    text = old.text if old.stopped or held else now.text
    return replace(now, stopped=now.stopped or old.stopped, quarantine=now.quarantine or held, text=text)
