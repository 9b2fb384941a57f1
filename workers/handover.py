"""Does what a plan says: per GPU first every detach, then, once it is proven free, the attach. GPUs side by side."""

from __future__ import annotations

import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace

from app import clock
from app.drivers.base import DriverError, TryAgain
from app.drivers.kernel import Holder
from app.services.plan import Attach, Detach, Ending, Plan, Trouble, is_in
from workers.evictor import Evictor
from workers.outcome import Errors, Outcome, Unrecorded
from workers.verdicts import State, Verdict
from workers.watch import Watch

log = logging.getLogger(__name__)

AT_ONCE = 16  # GPUs handed over side by side; one instance's updates are serialised by the driver
PATIENCE = 4.0  # seconds that a pass waits for its GPUs; what takes longer goes on while the others are looked after
AT_LAST = 8.0  # after which a GPU is given up at which nothing goes on: a host may be slow, and get there in the end
MOMENT = 0.5  # which it waits also where another GPU is due before

Done = tuple[Verdict | None, Errors]
"""What came of one GPU; no verdict where there was nothing to take back."""


@dataclass
class _Chain:
    detaches: list[Detach] = field(default_factory=list)
    attaches: list[Attach] = field(default_factory=list)

    def stays(self, watch: Watch, pci: str) -> bool:
        """Whether the GPU is in its place already, and only its tag is to be brought up to date."""
        ends = bool(self.detaches) or pci in watch.endings or pci in watch.want.quarantined
        return bool(self.attaches) and not ends and all(is_in(item.want, watch.seen) for item in self.attaches)

    def done(self, verdict: Verdict | None, errors: Errors) -> list[Detach | Attach]:
        """What of it was done."""
        if verdict is not None and verdict.state != State.FREE:
            return []
        return [*self.detaches, *(item for item in self.attaches if item.want.tag.allocation_id not in errors)]


class Hands:
    """Threads that outlive a pass: one that LXD, or a container, keeps waiting must not keep the others."""

    def __init__(self, evictor: Evictor, patience: float = PATIENCE, wake: Callable[[], None] = lambda: None) -> None:
        """`patience`: no longer than between two passes, else the others are late for one. `wake`: has a pass made soon
        once something is done that a pass did not wait for: the next in line waits for that."""
        self.evictor = evictor
        self._patience, self._wake = min(patience, PATIENCE), wake
        self._late: dict[str, tuple[Future[Done], _Chain, Ending | None]] = {}  # of earlier passes, by GPU
        self.unrecorded = Unrecorded()
        self._why: dict[str, str] = {}  # by GPU, what keeps it from being free; "" once it is
        self._since: dict[str, float] = {}  # by GPU, the last step towards that, by the monotonic clock
        self._pool = ThreadPoolExecutor(max_workers=AT_ONCE, thread_name_prefix="gpu")

    def act(self, watch: Watch, todo: Plan, also: Collection[str] = ()) -> Outcome:
        """Do the plan, and see that the GPUs in `also` are free."""
        chains = _chains(todo, also)
        outcome = Outcome()
        self._catch_up(outcome)
        futures: dict[Future[Done], str] = {}
        for pci, chain in chains.items():
            if pci in self.evictor.busy or pci in self.evictor.begun:
                self._not_done(outcome, watch, pci, chain)
                continue
            self.evictor.busy.add(pci)
            self._since[pci] = time.monotonic()
            futures[self._pool.submit(self._hand_over, watch, pci, chain)] = pci
        done, late = wait(futures, timeout=self._time(watch))
        for future in late:
            pci = futures[future]
            log.warning("GPU %s: still at it, going on without", pci)
            self._late[pci] = future, chains[pci], watch.endings.get(pci)
            future.add_done_callback(lambda _: self._wake())
            self._not_done(outcome, watch, pci, chains[pci])
        for future in done:
            verdict, errors = future.result()
            outcome.verdicts |= {futures[future]: verdict} if verdict else {}
            outcome.errors |= errors
        return outcome

    def _time(self, watch: Watch) -> float:
        """Seconds to wait for what was begun: others' bookings that begin or end meanwhile are for the next pass."""
        coming = watch.want.next_boundary
        left = (coming - clock.now()).total_seconds() if coming else self._patience
        return max(MOMENT, min(left, self._patience))

    def _catch_up(self, outcome: Outcome) -> None:
        """What came of GPUs that an earlier pass did not wait for."""
        done = {pci: late for pci, late in self._late.items() if late[0].done()}
        self._late = {pci: late for pci, late in self._late.items() if pci not in done}
        for pci, (future, chain, ending) in done.items():
            if future.cancelled() or future.exception() is not None:
                continue
            verdict, errors = future.result()
            outcome.belated += chain.done(verdict, errors)
            if verdict is not None:
                self.unrecorded.add(pci, verdict, ending)

    def close(self) -> None:
        """Start nothing more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _not_done(self, outcome: Outcome, watch: Watch, pci: str, chain: _Chain) -> None:
        """It goes on without this pass; a GPU that is not proven free for too long, nobody gets."""
        why = self._why.get(pci, "")
        ends = why != "" and _is_due(watch, pci)
        text = why or "the last attempt at it is still under way"
        given_up = ends and time.monotonic() - self._since.get(pci, math.inf) > AT_LAST
        outcome.verdicts[pci] = Verdict(State.HELD, text=text, quarantine=given_up)
        outcome.errors |= {item.want.tag.allocation_id: (Trouble.HELD, text) for item in chain.attaches}

    def _hand_over(self, watch: Watch, pci: str, chain: _Chain) -> Done:
        """One GPU: out of every instance that should not have it, proven free, then into the one that should."""
        try:
            if chain.stays(watch, pci):
                return None, self._give(watch, pci, chain.attaches)
            verdict = self._take_back(watch, pci, chain.detaches)
            if verdict.state != State.FREE:
                trouble = Trouble.EVICTING if verdict.state == State.WAITING else Trouble.HELD
                return verdict, {item.want.tag.allocation_id: (trouble, verdict.text) for item in chain.attaches}
            return verdict, self._give(watch, pci, chain.attaches)
        except DriverError as error:
            log.warning("GPU %s: %s", pci, error)
            errors = {item.want.tag.allocation_id: (Trouble.HELD, str(error)) for item in chain.attaches}
            given_up = _is_due(watch, pci) and self.evictor.overdue(watch, pci)
            return Verdict(State.HELD, text=str(error), quarantine=given_up), errors
        except Exception:
            log.exception("GPU %s", pci)
            raise
        finally:
            self.evictor.busy.discard(pci)

    def _take_back(self, watch: Watch, pci: str, detaches: list[Detach]) -> Verdict:
        """Detach, end what holds it, see that it is free; when that takes too long, the last resort."""
        verdict = self._try(watch, pci, detaches)
        if verdict.state == State.HELD and pci not in watch.want.quarantined and self.evictor.overdue(watch, pci):
            verdict = self._last_resort(watch, pci, detaches, verdict)
        self.evictor.settle(pci, verdict)
        return verdict

    def _try(self, watch: Watch, pci: str, detaches: list[Detach]) -> Verdict:
        failed = None
        for item in detaches:
            self._at(pci, f"{item.device} is still being detached from {item.instance}")
            try:
                self.evictor.remove(item)
            except DriverError as error:
                log.warning("detach of %s from %s: %s", item.device, item.instance, error)
                failed = Verdict(State.HELD, text=str(error), instances=(item.instance,))
        why = failed.text if failed else "what holds it is still being looked for, and ended"
        # Also after a detach that failed: the fence holds, holders can end.
        ended: list[Holder] = []
        try:
            verdict = self.evictor.clear(watch, pci, lambda: self._at(pci, why), ended)
        except DriverError as error:
            log.warning("GPU %s: %s", pci, error)
            verdict = Verdict(State.HELD, text=str(error), ended=tuple(ended))
        if failed is not None and verdict.state == State.FREE:
            verdict = replace(failed, ended=verdict.ended)
        self._at(pci, verdict.text if verdict.state == State.HELD else "")
        return verdict

    def _at(self, pci: str, why: str) -> None:
        """It has come so far with this GPU."""
        self._why[pci], self._since[pci] = why, time.monotonic()

    def _last_resort(self, watch: Watch, pci: str, detaches: list[Detach], verdict: Verdict) -> Verdict:
        """Stop the instance that does not let go, if the admins' rules allow that; else nobody gets the GPU."""
        for name in verdict.instances if watch.want.force_stop else ():
            log.warning("GPU %s: stopping %s, which does not let go of it: %s", pci, name, verdict.text)
            self._at(pci, f"{name} is still being stopped")
            try:
                self.evictor.driver.stop(name, force=True)
            except DriverError as error:
                log.warning("%s could not be stopped: %s", name, error)
                continue
            after = self._try(watch, pci, detaches)
            if after.state == State.FREE:
                return replace(after, stopped=name, text=verdict.text, ended=verdict.ended + after.ended)
            verdict = replace(after, ended=verdict.ended + after.ended)
        return replace(verdict, quarantine=True)

    def _give(self, watch: Watch, pci: str, attaches: list[Attach]) -> Errors:
        errors: Errors = {}
        for attach in attaches:
            want = attach.want
            try:
                self.evictor.admit(watch, want.instance or "", pci)
                self.evictor.driver.attach(want.instance or "", want.gpu, want.tag)
            except DriverError as error:
                log.warning("attach of %s to %s: %s", want.device, want.instance, error)
                todo = "It is tried again by itself." if error.todo == TryAgain.AGAIN else ""
                errors[want.tag.allocation_id] = (Trouble.ERROR, error.sentences(todo))
        return errors


def _is_due(watch: Watch, pci: str) -> bool:
    """Whether somebody's time with the GPU is over, and it is not given up yet."""
    return pci in watch.endings and pci not in watch.want.quarantined


def _chains(todo: Plan, also: Collection[str]) -> dict[str, _Chain]:
    chains: dict[str, _Chain] = defaultdict(_Chain)
    for detach in todo.detaches:
        chains[detach.pci_address or detach.device].detaches.append(detach)
    for attach in todo.attaches:
        chains[attach.want.gpu.pci_address].attaches.append(attach)
    for pci in also:
        chains[pci]
    return chains
