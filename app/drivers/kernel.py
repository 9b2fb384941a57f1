"""What Berth asks of a host's kernel: who holds a GPU, and that nobody opens it who has not booked it.

LXD's `device remove` takes back neither an open descriptor nor a bind mount of the node, and in an unprivileged
container no device cgroup says no. `holders` is the real kernel, `fake_kernel` the simulated host's.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, Protocol

from app.drivers.base import HostSeen, Number
from app.drivers.gauges import Gauges

HOST = ""  # the "instance" of a process that is in none


class How(StrEnum):
    """In what way a process holds a device."""

    OPEN = "open"  # a descriptor, O_PATH ones included: they can be opened again
    MAPPED = "mapped"  # in its memory, the descriptor perhaps closed
    IN_FLIGHT = "in_flight"  # a descriptor that was sent to a socket of its and not received yet
    REGISTERED = "registered"  # a file that io_uring keeps for it
    KEPT = "kept"  # memory on it, perhaps, by the driver that it has open or mapped; the GPU's node it has let go of
    LISTED = "listed"  # by NVML's word alone: the look found nothing in its hands


@dataclass(frozen=True)
class Holder:
    """A process that has a GPU's device. With `start` (clock ticks) its id names one process for ever.

    `instance`: LXD's name for the container it is in, by its cgroup, HOST if in none. `name` is what it calls itself:
    to be shown, never to be believed. `first`: it is the container's first process, with which all of it ends.
    """

    pid: int
    start: int
    instance: str
    name: str
    numbers: frozenset[Number]
    how: How = How.OPEN
    first: bool = False

    @property
    def spared(self) -> bool:
        """Whether it is not ended, and keeps its GPU from being proven free: a container ends with its first process,
        and who is only listed by NVML may have the number of one that is gone."""
        return self.first or self.how == How.LISTED


class Process(NamedTuple):
    """Whose a process is, as for a Holder."""

    start: int
    instance: str
    name: str


class Parted(StrEnum):
    """What came of asking a process of the host to part with its GPUs."""

    ENDED = "ended"
    LET_GO = "let_go"  # it goes on, without them
    STAYS = "stays"  # not even SIGKILL ends it: it waits within the kernel


@dataclass(frozen=True)
class Scan:
    """Who holds any of the devices that were asked for. `doubts`: by instance, why it could not be looked at all of it;
    what is in there may hold anything. A holder without numbers keeps descriptors that could not be looked at, or
    memory on nobody knows which GPU."""

    holders: tuple[Holder, ...] = ()
    doubts: Mapping[str, str] = field(default_factory=dict)
    processes: int = 0


class Kernel(Protocol):
    """One host's kernel. Safe to use from several threads. No call lasts longer than a few seconds, whatever a
    container does; none is raised for what a container does. Raises DriverError for what is wrong with the host."""

    def fence(
        self, seen: HostSeen, denied: Mapping[str, frozenset[Number]], guarded: frozenset[Number]
    ) -> dict[str, str]:
        """Let each of these running instances open none of its numbers from now on, and the rest of `guarded` again: of
        all GPUs of the host, or what was denied when one went out of service stays so.

        Descriptors that are open stay so. Returns, by instance, why it could not be done: then only `shut` protects."""

    def shut(self, instance: str, device: str) -> None:
        """Take owner and permissions from the GPU's node that LXD made for the instance, and so from every copy of it.

        No such node is fine. To be done before LXD removes the node: afterwards only its copies are left."""

    def still(self, seen: HostSeen, instances: Collection[str]) -> AbstractContextManager[None]:
        """Hold these instances still while the context lasts, so that one look shows all of them at one moment.

        What is killed meanwhile is gone, or goes before it does anything else."""

    def scan(self, seen: HostSeen, numbers: frozenset[Number], *, thorough: bool = True) -> Scan:
        """Who on the host holds any of these devices. Not `thorough`: memory maps and descriptors in flight are looked
        at in turns, a part of the processes each time."""

    def running(self) -> HostSeen:
        """The instances that run, and their first processes, for as long as LXD has never been heard."""

    @property
    def gauges(self) -> Gauges:
        """What the host's GPUs are at: always the same object."""

    def whose(self, seen: HostSeen, pids: Collection[int]) -> dict[int, Process]:
        """Those of these processes that are there, and in which instance, by its cgroup."""

    def ask(self, holders: Collection[Holder], seconds: float) -> tuple[Holder, ...]:
        """Send each SIGTERM, wait at most so long for all to end; those that are still there."""

    def kill(self, holders: Collection[Holder], seconds: float) -> tuple[Holder, ...]:
        """Send each SIGKILL, also if it is frozen; wait at most so long; those that are still there.

        Never a process of the host, nor a container's first one."""

    def end_on_host(self, holder: Holder, seconds: float) -> Parted:
        """End a process of the host itself: SIGTERM, so long to end, and SIGKILL if it still is who it was and still
        holds one of `holder.numbers`. For a person who asked for it: nothing that runs by itself may call this.

        Raises DriverError for one that is in an instance, holds none of them, or is the host's first process."""

    def close(self) -> None:
        """End what runs beside this process."""
