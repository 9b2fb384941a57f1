"""What came of a plan, and of what passes before it had begun or could not write down."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from app.services.plan import Attach, Detach, Trouble
from app.services.recording import Late
from workers.verdicts import State, Verdict
from workers.watch import Watch

MOST = 1000  # processes of a GPU that are remembered until they can be written down

Errors = dict[int, tuple[Trouble, str]]
"""By allocation id, why its GPU was not plugged in."""


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

    def asked_of(self, watch: Watch) -> set[int]:
        """The allocations whose holders were asked to end, or ended."""
        ended = {pci for pci, verdict in self.verdicts.items() if verdict.ended or verdict.state == State.WAITING}
        return self.asked | {watch.endings[pci].tag.allocation_id for pci in ended & watch.endings.keys()}

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
        self._verdicts: dict[str, Verdict] = {}

    def add(self, pci: str, verdict: Verdict) -> None:
        """Remember what is worth it."""
        if pci in self._verdicts:
            verdict = _with_earlier(self._verdicts[pci], verdict)
        if verdict.ended or verdict.stopped or verdict.quarantine:
            self._verdicts[pci] = replace(verdict, ended=verdict.ended[:MOST])

    def keep(self, outcome: Outcome) -> None:
        """A pass's, that could not be written down."""
        for pci, verdict in outcome.verdicts.items():
            self.add(pci, verdict)

    def bring_up(self, outcome: Outcome) -> None:
        """Have it written down with what this pass found."""
        for pci, verdict in self._verdicts.items():
            outcome.verdicts[pci] = _with_earlier(verdict, outcome.verdicts.get(pci, Verdict(State.WAITING)))
        self._verdicts = {}


def _with_earlier(old: Verdict, now: Verdict) -> Verdict:
    """Whom an earlier pass ended and stopped has to be on record, and that it could not prove the GPU free, unless this
    one has. That it is free, only a new look can tell."""
    held = old.quarantine and now.state != State.FREE
    return replace(
        now, ended=old.ended + now.ended, stopped=now.stopped or old.stopped, quarantine=now.quarantine or held,
        text=old.text if old.stopped or held else now.text,
    )  # fmt: skip
