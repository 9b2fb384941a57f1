"""The kernel of the host that Berth runs on, as `app.drivers.kernel.Kernel`."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from app.drivers.base import NVIDIA_MAJOR, DriverError, HostSeen, InstanceSeen, Number
from app.drivers.gauges import NvmlGauges
from app.drivers.holders import cgroups, ending, listed, nodes
from app.drivers.holders.cgroups import Hierarchies
from app.drivers.holders.fence import Fence
from app.drivers.holders.listed import Listed
from app.drivers.holders.scanner import Scanner
from app.drivers.holders.stillness import Stillness
from app.drivers.kernel import HOST, Holder, How, Parted, Process, Scan

_LONGEST = 63  # characters of an instance's name
_NVIDIA = frozenset((NVIDIA_MAJOR, minor) for minor in range(254)) | {listed.DRIVER}
_ASTRAY = (
    "its processes are in no cgroup that LXC made at the root of the tree: they cannot be told from the host's own"
)
_THAW_EVERY = 0.05  # seconds: who is frozen again by its own root before it could die


class HostKernel:
    """`devices_dir`: where LXD keeps the nodes it makes, None while that cannot be looked at."""

    def __init__(
        self,
        devices_dir: Callable[[], Path | None],
        scanner: Scanner | None = None,
        trees: Hierarchies | None = None,
        nvml: Listed | None = None,
        gauges: NvmlGauges | None = None,
    ) -> None:
        self._devices_dir = devices_dir
        self._scanner = scanner or Scanner()
        self._nvml = nvml or Listed()
        self.gauges = gauges or NvmlGauges()
        self.trees = trees or cgroups.hierarchies()
        self._fence = Fence(self.trees)
        self._stillness = Stillness(self.trees)
        self._lock = threading.Lock()
        self._groups: dict[str, tuple[int, str]] = {}  # by instance: its first process, and its cgroup

    def fence(
        self, seen: HostSeen, denied: Mapping[str, frozenset[Number]], guarded: frozenset[Number]
    ) -> dict[str, str]:
        """Deny each running instance its numbers."""
        troubles = {}
        with self._lock:
            for name, numbers in denied.items():
                instance = seen.instances.get(name)
                if instance is None or instance.status not in {"running", "frozen"}:
                    continue
                # What is denied to a privileged one is taken from a list that LXD made; nothing is ever added to it.
                allowed = frozenset() if instance.privileged else guarded - numbers
                group = self._group(name, instance.init)
                # LXD adds to that list whatever is plugged in by hand, so what was denied before may not be any more.
                if trouble := self._fence.deny(group, numbers, allowed, anew=instance.privileged):
                    troubles[name] = trouble
        return troubles

    def shut(self, instance: str, device: str) -> None:
        """Shut the nodes that LXD made."""
        try:
            directory = self._devices_dir()
            if directory is not None:
                nodes.shut(directory, instance, device)
        except nodes.CannotLookError as error:
            raise DriverError(f"Shut {device} of {instance}", str(error)) from error

    @contextmanager
    def still(self, seen: HostSeen, instances: Collection[str]) -> Iterator[None]:
        """Freeze them meanwhile."""
        self._nvml.ready()  # what may take long, before anybody is held still
        with self._lock:
            groups = [self._group(name, seen.instances[name].init) for name in instances if name in seen.instances]
        with self._stillness.of(groups):
            yield

    def scan(self, seen: HostSeen, numbers: frozenset[Number], *, thorough: bool = True) -> Scan:
        """Who holds what, by the look and, if `thorough`, by NVML's list of what runs on the GPUs."""
        found = self._scanner.look(numbers | _NVIDIA if thorough else numbers, thorough=thorough)
        rows = list(found.found)
        if thorough:
            rows += listed.missed(self._nvml.on(numbers), found.found)
        own = self._nvml.own | self.gauges.own
        names = self._names(seen)
        firsts = {instance.init for instance in seen.instances.values()}
        holders = tuple(_holder(row, names, firsts, numbers) for row in rows if row[0] not in own)
        doubts = {names.get(group, group): why for group, why in found.doubts.items()} | self._astray(seen)
        return Scan(tuple(holder for holder in holders if holder is not None), doubts, found.processes)

    def running(self) -> HostSeen:
        """As LXC knows them. Which are privileged is not known: the fence opens nothing again in such a one."""
        found = cgroups.monitored()
        seen = {name: InstanceSeen(name, "running", privileged=True, init=init) for name, init in found.items()}
        return HostSeen(seen, looked=False)

    def whose(self, seen: HostSeen, pids: Collection[int]) -> dict[int, Process]:
        """By /proc; an instance that was not seen yet goes by its cgroup's name."""
        names = self._names(seen)
        found = {}
        for pid in pids:
            if (start := nodes.start_time(pid)) is not None:
                group = cgroups.payload(pid)
                instance = names.get(group, group.removeprefix("lxc.payload."))[:_LONGEST] if group else HOST
                found[pid] = Process(start, instance, nodes.name_of(pid))
        return found

    def ask(self, holders: Collection[Holder], seconds: float) -> tuple[Holder, ...]:
        """SIGTERM."""
        left: list[Holder] = []
        deadline = time.monotonic() + seconds
        for some in ending.portions(holders):
            with ExitStack() as stack:
                sent = ending.send(some, signal.SIGTERM, self._known(), stack)
                left += ending.wait(sent, deadline - time.monotonic())
        return tuple(left)

    def kill(self, holders: Collection[Holder], seconds: float) -> tuple[Holder, ...]:
        """SIGKILL. Who is frozen in a version 1 cgroup dies when it thaws; what its instance was, it is afterwards."""
        left: list[Holder] = []
        deadline = time.monotonic() + seconds
        for some in ending.portions([holder for holder in holders if not holder.first and holder.instance != HOST]):
            left += self._kill(some, deadline)
        return tuple(left)

    def _kill(self, targets: Collection[Holder], deadline: float) -> tuple[Holder, ...]:
        with ExitStack() as stack:
            sent = ending.send(targets, signal.SIGKILL, self._known(), stack)
            left = ending.wait(sent, min(deadline - time.monotonic(), _THAW_EVERY))
            while left and time.monotonic() < deadline:
                self._thaw({holder.instance for holder in left})
                alive = {handle: holder for handle, holder in sent.items() if holder in left}
                left = ending.wait(alive, _THAW_EVERY)
        return left

    def end_on_host(self, holder: Holder, seconds: float) -> Parted:
        """SIGTERM and SIGKILL to one process of the host."""

        def holds() -> bool:
            found = self.scan(HostSeen(), holder.numbers).holders  # whoever is in a container is so without LXD's word
            return any((one.pid, one.start, one.instance) == (holder.pid, holder.start, HOST) for one in found)

        return ending.part(holder, holds, seconds)

    def close(self) -> None:
        """End what runs beside this process."""
        self._scanner.close()
        self._nvml.close()
        self.gauges.close()

    def _names(self, seen: HostSeen) -> dict[str, str]:
        """The instances by their cgroups."""
        with self._lock:
            groups = {self._group(name, instance.init): name for name, instance in seen.instances.items()}
        return {group: name for group, name in groups.items() if group}

    def _astray(self, seen: HostSeen) -> dict[str, str]:
        """Those that run, and whose processes would be taken for the host's: nothing in them is known to be free. LXC
        puts its groups below that of the host's first process, which is the root of the tree unless the host is itself
        in somebody's box."""
        inits = {name: instance.init for name, instance in seen.instances.items() if instance.init}
        with self._lock:
            lost = [name for name, init in inits.items() if not self._group(name, init)]
        return {name: _ASTRAY for name in lost if nodes.start_time(inits[name]) is not None}

    def _thaw(self, instances: Collection[str]) -> None:
        if self.trees.freezer is None:
            return
        groups = self._known()
        for name in instances:
            if not (group := groups.get(name)):
                continue
            top = self.trees.freezer / group
            was_frozen = cgroups.frozen(top)
            with suppress(OSError, OverflowError):
                cgroups.thaw(top, 0.5)
            if was_frozen:
                with suppress(OSError):
                    cgroups.freeze(top)

    def _known(self) -> dict[str, str]:
        with self._lock:
            return {name: group for name, (_init, group) in self._groups.items()}

    def _group(self, name: str, init: int) -> str:
        """An instance's cgroup, by its first process: LXD may have had to add a number to the name."""
        known = self._groups.get(name)
        if known and known[0] == init and known[1]:
            return known[1]
        group = cgroups.payload(init) if init else ""
        if group:
            self._stillness.recover(group)
        self._groups[name] = (init, group)
        return group


def _holder(row: list[object], names: dict[str, str], firsts: set[int], wanted: frozenset[Number]) -> Holder | None:
    pid, start, group, name, how, numbers = row
    assert isinstance(pid, int)
    assert isinstance(start, int)
    assert isinstance(numbers, list)
    held = frozenset((major, minor) for major, minor in numbers) & wanted
    if numbers and not held:  # of another's question that was answered together with ours
        return None
    instance = names.get(str(group), str(group)) if group else HOST
    return Holder(pid, start, instance, str(name), held, How(str(how)), first=pid in firsts)
