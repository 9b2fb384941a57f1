"""A fault run: people book, root on the hosts meddles, programs are killed, and GPUs are still never had by two.

`python -m tests.lab.faults --seed N --steps M` makes one on a LXD of its own and prints its history; `--shrink MINUTES`
looks for the shortest part of a run that failed that fails too. What is not allowed is said in `fault_judge`.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from app.extensions import transaction
from app.services import policy
from tests.lab.fault_books import books, told, untrue
from tests.lab.fault_end import ended
from tests.lab.fault_hand import Hand, furnished
from tests.lab.fault_judge import GRACE, TICK, Verdict, judge
from tests.lab.fault_moves import Done, Step, chosen
from tests.lab.fault_watch import Watch
from tests.lab.fixtures import why_no_lab
from tests.lab.lab import Lab, new_directory
from tests.lab.scene import scene

PEOPLE = 5
GPUS = 4
STEPS = 300
LOOK_EVERY = 20  # steps between two judgements while it runs
CERTAIN = 1.0  # seconds after which all is known of what was complained of
# /dev/random, urandom, loop-control and btrfs-control, which every machine with a lab has: for each GPU a device of its
# own, and none that other labs have.
DEVICES = ((1, 8), (1, 9), (10, 237), (10, 234))


class FaultLab(Lab):
    """A host whose GPUs can all be read, and told apart by what they are."""

    def _cards(self) -> list[tuple[str, int, list[tuple[int, int]]]]:
        return [(address, minor, [DEVICES[n]]) for n, (address, minor, _) in enumerate(super()._cards())]


@dataclass
class Result:
    """What came of a run."""

    seed: int
    steps: Sequence[Step]
    verdict: Verdict
    complaints: list[str]
    history: list[Done]
    zero: float
    figures: dict[str, float] = field(default_factory=dict)
    output: str = ""

    def report(self) -> str:
        """The seed, every move with its moment, and what is wrong."""
        lines = [done.line(self.zero) for done in self.history]
        return "\n".join([f"seed {self.seed}, {len(self.steps)} steps", *lines, *self.complaints, self.summary()])

    def summary(self) -> str:
        worst = ", ".join(f"{kind} {seconds:.2f} s" for kind, seconds in sorted(self.verdict.longest.items()))
        counts = ", ".join(f"{name} {number:g}" for name, number in self.figures.items())
        return (
            f"seed {self.seed}, {len(self.history)} moves: {len(self.complaints)} complaints; unbooked at most "
            f"{worst or 'never'}; two at once by the doing of root on the host {len(self.verdict.excused)} times, for "
            f"{max(self.verdict.excused, default=0):.2f} s at most; {counts}"
        )


def carry_out(seed: int, steps: Sequence[Step], host: Lab, **more: str) -> Result:
    """One run on a fresh Berth. `more`: its environment."""
    logs = host.directory / f"logs-{time.monotonic_ns()}"
    began = time.monotonic()
    options = furnished(host, logs)
    try:
        with scene(host, BERTH_TICK=str(TICK), **more) as made:
            with made.app.app_context(), transaction():
                policy.current().grace_seconds = GRACE
            people = made.people(host, PEOPLE, options)
            with Watch(made, host, logs) as watch:
                hand = Hand(made, host, people, watch)
                try:
                    return _run(seed, steps, hand, began)
                finally:
                    hand.close()
                    host.remove(*hand.copies)
    finally:
        host.lxc("profile", "device", "remove", "default", "logs", check=False)
        shutil.rmtree(logs, ignore_errors=True)


def _run(seed: int, steps: Sequence[Step], hand: Hand, began: float) -> Result:
    watch, complaints = hand.watch, list[str]()
    ready = stepped = time.monotonic()
    try:
        well = _stepped(steps, hand)
        stepped = time.monotonic()
        complaints += ended(hand) if well else []
    except Exception:  # noqa: BLE001 - whatever it is, the history leads there
        complaints.append(f"the run broke off: {traceback.format_exc()}")
    facts = watch.facts()
    verdict = judge(facts)
    complaints += verdict.complaints
    complaints += (books(hand.scene) + untrue(hand.scene, facts)) if not complaints else []
    figures = {
        "bookings": len(hand.booked),
        "times a GPU was had": len(facts.spans),
        "outages": len(facts.outages),
        **told(hand.scene, ["gpu.process_ended", "gpu.intruder", "gpu.quarantined"]),
        "s to set up": round(ready - began),
        "s of steps": round(stepped - ready),
        "s to end": round(time.monotonic() - stepped),
    }
    output = hand.scene.berth.output
    return Result(seed, steps, verdict, complaints, hand.history, watch.zero, figures, output)


def _stepped(steps: Sequence[Step], hand: Hand) -> bool:
    """Carry the steps out until there is something to complain of; whether there was nothing."""
    for number, step in enumerate(steps, 1):
        hand.do(step)
        if (number % LOOK_EVERY == 0 or number == len(steps)) and judge(hand.watch.facts()).complaints:
            time.sleep(CERTAIN)
            if judge(hand.watch.facts()).complaints:
                return False
    return True


def shortest(result: Result, host: Lab, minutes: float) -> Result:
    """The shortest part of a failed run that was found, within that time, to fail too. Moments are not the same again,
    so a part that does not fail proves nothing."""
    deadline = time.monotonic() + 60 * minutes
    steps, chunk = list(result.steps), max(1, len(result.steps) // 2)
    while chunk and time.monotonic() < deadline:
        place = 0
        while place < len(steps) and time.monotonic() < deadline:
            fewer = [*steps[:place], *steps[place + chunk :]]
            tried = carry_out(result.seed, fewer, host)
            print(f"  without steps {place} to {place + chunk}: {len(tried.complaints)} complaints", flush=True)
            if tried.complaints:
                result, steps = tried, fewer
            else:
                place += chunk
        chunk //= 2
    return result


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.lab.faults", description=__doc__)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--shrink", type=float, default=0.0, metavar="MINUTES")
    parser.add_argument("--log", type=Path, help="where to write what Berth said")
    wish = parser.parse_args()
    if why := why_no_lab():
        print(why, file=sys.stderr)
        return 2
    folder = new_directory()
    try:
        with FaultLab(folder / "faults", gpus=GPUS, readable=True) as host:
            result = carry_out(wish.seed, chosen(wish.seed, wish.steps), host)
            print(result.report(), flush=True)
            if wish.log:
                wish.log.write_text(result.output)
            if result.complaints and wish.shrink:
                print(f"\nThe shortest:\n{shortest(result, host, wish.shrink).report()}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return bool(result.complaints)


if __name__ == "__main__":
    sys.exit(main())
