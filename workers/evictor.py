"""Takes GPUs back, provably, and keeps them from those who have not booked them.

The order, per GPU: fence (the cgroup says no, the node loses its permissions) → detach → end what still holds it → see
that nobody does → only then give it on. Each step may be repeated; only who was asked, and what is due, is remembered.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from app import clock
from app.drivers.base import DriverError, HostSeen, LxdDriver, Node
from app.drivers.kernel import Holder, Kernel, Scan
from app.services import enforcement
from app.services.plan import Desired, Detach, Ending
from workers.dues import Dues
from workers.known_gpus import KnownGpus
from workers.verdicts import State, Verdict
from workers.watch import Watch, located

log = logging.getLogger(__name__)

SWEEP_EVERY = 4.9  # seconds between two looks for holders on the whole host: at every tick
AHEAD = timedelta(seconds=2)  # which such a look may take, where containers have much to look at
INTRUDER_GRACE = timedelta(seconds=2)  # for who holds a GPU that was never theirs to hold at that time
ASKED = timedelta(minutes=10)  # for which it is remembered who was asked: their turn to be looked at comes in two
SHORT = 0.2  # seconds between the signals to a process that was not asked before, and to be killed now
DEATH = 1.0  # seconds for killed processes to be gone
ROUNDS = 4  # looks and kills before it is left to the next pass
SUSPECT_AFTER = 0.3  # seconds for which descriptors may be on their way to a process that is only slow to read them


class Evictor:
    """One host's. `kernel` None: the host is another machine, and LXD's word has to do. `kept`: see KnownGpus."""

    def __init__(self, driver: LxdDriver, kernel: Kernel | None, kept: Path | None = None) -> None:
        self.driver, self.kernel = driver, kernel
        self.gpus = KnownGpus(driver if kernel else None, kept)
        self.busy: set[str] = set()  # GPUs with a chain under way, perhaps of an earlier pass
        self.begun: frozenset[str] = frozenset()  # those when this pass looked: what it saw of them is half done
        self.scan: Scan | None = None  # the last look over the whole host
        self.last: Desired | None = None  # the database's last word, for when it is away
        self._latest: Watch | None = None  # the pass that began last
        self.asked: dict[tuple[int, int], datetime] = {}  # who is being ended: a process's number and start
        self._suspected: dict[tuple[int, int], float] = {}
        self._dues = Dues()
        self._endings: dict[str, Ending] = {}  # not proven free yet
        self.seen = HostSeen(looked=False)  # the host's instances as last looked at
        self.swept = 0.0  # when the last look over the whole host began, by the monotonic clock
        self._lock = threading.Lock()

    def watch(self, want: Desired, seen: HostSeen | None) -> Watch:
        """Begin a pass: what was seen, or what was last seen where LXD is away, or what the kernel shows."""
        if seen is None and self.kernel and not self.seen.looked:
            seen = self.kernel.running()
        self.seen = self.seen if seen is None else seen
        if (want := enforcement.marked(want, self.seen)).host_id:
            self.last = want
        endings = located(want.endings, self.seen, self._endings)
        watch = Watch(want, self.seen, self.gpus(want.guarded), endings)
        watch.go_on(self.begun, self._latest if seen is None else None)
        with self._lock:
            self._latest = watch
            for pci, ending in self._endings.items():
                if not watch.wants(ending.instance, pci):  # else their next booking goes on where this one ended
                    endings.setdefault(pci, ending)
            self._endings = dict(endings)
        return watch

    def fence(self, watch: Watch) -> dict[str, str]:
        """Let each instance open the GPUs that are rightly in it, and no others of Berth's. Returns what went wrong."""
        if self.kernel is None:
            return {}
        with self._lock:
            denied = {name: watch.guarded - watch.open_to(name) for name in watch.seen.instances}
            troubles = self.kernel.fence(watch.seen, denied, watch.every)
        for name, why in troubles.items():
            log.warning("%s could not be fenced: %s", name, why)
        return troubles

    def admit(self, watch: Watch, instance: str, pci: str) -> None:
        """Let an instance open a GPU that is about to be plugged in. A later pass knows better than that of `watch`:
        raises DriverError if it does not want it there any more."""
        with self._lock:  # all of it: two GPUs of one instance are admitted side by side
            latest = self._latest or watch
            if not latest.wants(instance, pci):
                raise DriverError(f"Attach GPU {pci} to {instance}", "it is not booked for it any more")
            latest.admit(instance, pci)
            if self.kernel is not None:
                self.kernel.fence(latest.seen, {instance: latest.guarded - latest.open_to(instance)}, latest.every)

    def sweep(self, watch: Watch) -> set[str]:
        """A look over the whole host, now and then; the PCI addresses of GPUs that somebody holds unbooked.

        Who holds one that is out of service is looked for too: it is listed, and left alone."""
        coming, waited = watch.want.next_boundary, time.monotonic() - self.swept
        if self.kernel is None or not watch.every or waited < SWEEP_EVERY:
            return set()
        if coming is not None and coming - clock.now() < AHEAD and waited < 2 * SWEEP_EVERY:
            return set()  # a GPU is due in a moment, and would be late for this
        self.swept = time.monotonic()
        self.scan = self.kernel.scan(watch.seen, watch.every, thorough=False)
        alive, since = {(holder.pid, holder.start) for holder in self.scan.holders}, clock.now() - ASKED
        with self._lock:  # such a look sees not everybody who holds one
            self.asked = {key: at for key, at in self.asked.items() if key in alive or at > since}
        return {pci for pci in watch.want.guarded if watch.intruders(self.scan, pci)}

    def ask_ahead(self, watch: Watch) -> set[int]:
        """Ask what holds GPUs to end, since somebody else comes next; the allocations for which that was done.

        One look for all of them: the ends are near, and the pass that keeps them comes after this one."""
        now = clock.now().timestamp()
        soon = {one: watch.of(one.gpu.pci_address) for one in watch.want.soon if one.tag.ends_at > now}
        if self.kernel is None or not soon:
            return set()
        scan = self.kernel.scan(watch.seen, frozenset().union(*soon.values()), thorough=True)
        asked = set()
        for ending, numbers in soon.items():
            if holders := [one for one in scan.holders if one.instance == ending.instance and one.numbers & numbers]:
                self._ask(holders, 0.0)
                asked.add(ending.tag.allocation_id)
        return asked

    def remove(self, item: Detach) -> None:
        """Fence and detach one device; LXD's "done" is not believed. Raises DriverError."""
        if self.kernel is not None:
            self.kernel.shut(item.instance, item.device)
        self.driver.detach(item.instance, item.device)
        seen = self.driver.observe(frozenset({item.instance})).instances.get(item.instance)
        for device in seen.devices if seen else ():
            if device.name == item.device and (device.configured or device.node == Node.PRESENT):
                raise DriverError(f"{item.device} is still in {item.instance}", "LXD said that it was removed")

    def clear(self, watch: Watch, pci: str, on_round: Callable[[], None], ended: list[Holder]) -> Verdict:
        """End what holds a GPU and should not, if it is time; whether it is free now. `on_round`: before each look.
        `ended` grows by whom it ended, whatever then goes wrong. Raises DriverError."""
        if self.kernel is None:
            return Verdict(State.FREE)
        ending = watch.endings.get(pci)
        where = {ending.instance} if ending and ending.instance else set()
        verdict = Verdict(State.HELD, text="it is taken up again and again")
        for number in range(ROUNDS):
            on_round()
            with self.kernel.still(watch.seen, where):
                scan = self.kernel.scan(watch.seen, watch.of(pci), thorough=True)
                suspects, fresh = self._suspects(watch, scan, pci)
                verdict = self._judge(watch, pci, watch.intruders(scan, pci) + suspects, fresh, scan)
                # Who comes up once the others were asked is killed as it is found: else it is always a new one that is.
                unasked = self._unasked(verdict.holders) if number == 0 else []
                if verdict.holders and not unasked:
                    ended += self._kill(verdict.holders)
            if unasked:
                self._ask(unasked, SHORT)
            elif not verdict.holders:
                break
            where |= set(verdict.instances)
            if fresh:
                time.sleep(SUSPECT_AFTER)
        once = {(one.pid, one.start): one for one in reversed(ended)}  # a program opens it and maps it
        return replace(verdict, ended=tuple(reversed(once.values())))

    def settle(self, pci: str, verdict: Verdict) -> None:
        """Remember, or forget, that a GPU is still to be freed."""
        if verdict.state == State.FREE:
            self._dues.settle(pci)
            with self._lock:
                self._endings.pop(pci, None)

    def overdue(self, watch: Watch, pci: str) -> bool:
        """Whether a GPU that is held should have been free for so long that something has to give."""
        return self._dues.overdue(pci, watch.endings.get(pci), clock.now())

    def _judge(self, watch: Watch, pci: str, holders: list[Holder], fresh: bool, scan: Scan) -> Verdict:
        now = clock.now()
        later = [holder for holder in holders if self._deadline(watch, pci, holder) > now]
        kept = [holder for holder in holders if holder not in later and holder.spared]
        due = tuple(holder for holder in holders if holder not in later and not holder.spared)
        if kept and not due:
            pid, name = kept[0].pid, kept[0].instance
            text = f"the first process of {name} holds it" if kept[0].first else f"NVML lists process {pid} of {name}"
            return Verdict(State.HELD, text=text, instances=(name,))
        if due:
            text = f"{due[0].name} (process {due[0].pid} in {due[0].instance}) does not let go of it"
            return Verdict(State.HELD, text=text, instances=tuple(sorted({one.instance for one in due})), holders=due)
        if later:
            self._ask(later, 0.0)
            until = min(self._deadline(watch, pci, holder) for holder in later)
            return Verdict(State.WAITING, until=until, instances=tuple(sorted({holder.instance for holder in later})))
        if doubt := self._doubt(watch, pci, scan):
            return Verdict(State.HELD, text=doubt[1], instances=(doubt[0],))
        if fresh:
            return Verdict(State.WAITING, until=now + timedelta(seconds=SUSPECT_AFTER))
        return Verdict(State.FREE, at=now)

    def _deadline(self, watch: Watch, pci: str, holder: Holder) -> datetime:
        """When a holder is killed: as its booking's end says, or soon after it was found without one."""
        ending = watch.endings.get(pci)
        if ending is not None and (ending.instance in {holder.instance, None} or ending.kill_at <= clock.now()):
            return ending.kill_at
        with self._lock:
            asked = self.asked.get((holder.pid, holder.start))
        return (asked or clock.now()) + INTRUDER_GRACE

    def _doubt(self, watch: Watch, pci: str, scan: Scan) -> tuple[str, str] | None:
        """Why the instance that had the GPU may still have it though no holder was found."""
        ending = watch.endings.get(pci)
        name = (ending.instance if ending else None) or ""
        return (name, f"{name} could not be looked at: {scan.doubts[name]}") if name in scan.doubts else None

    def _suspects(self, watch: Watch, scan: Scan, pci: str) -> tuple[list[Holder], bool]:
        """Who keeps descriptors that cannot be told, in the instance that had the GPU: those who have kept them for a
        while, and whether there are others who may only be slow to read."""
        ending = watch.endings.get(pci)
        if ending is None:
            return [], False
        every = {(one.pid, one.start): one for one in scan.holders if not one.numbers}
        kept = [one for one in every.values() if one.instance == ending.instance]
        now = time.monotonic()
        with self._lock:
            self._suspected = {key: since for key, since in self._suspected.items() if key in every}
            for one in kept:
                self._suspected.setdefault((one.pid, one.start), now)
            old = [one for one in kept if now - self._suspected[one.pid, one.start] >= SUSPECT_AFTER]
        return old, len(old) < len(kept)

    def _unasked(self, holders: Collection[Holder]) -> list[Holder]:
        with self._lock:
            return [holder for holder in holders if (holder.pid, holder.start) not in self.asked]

    def _kill(self, holders: Collection[Holder]) -> Collection[Holder]:
        assert self.kernel is not None
        for holder in self.kernel.kill(holders, DEATH):
            log.warning("process %d of %s does not die", holder.pid, holder.instance)
        return holders

    def _ask(self, holders: Collection[Holder], seconds: float) -> list[Holder]:
        """Ask each to end, once; those who had not been asked."""
        assert self.kernel is not None
        new = self._unasked(holders)
        with self._lock:
            self.asked |= {(holder.pid, holder.start): clock.now() for holder in new}
        if able := [holder for holder in new if not holder.spared]:
            self.kernel.ask(able, seconds)
        return new
