"""Looks through procfs for processes that hold a device: a program of its own, which may be abandoned when it hangs.

Reads requests, one line of JSON each: {"numbers": [[major, minor], …], "thorough": …, "turn": n, "turns": n,
"skip": [pid, …], "leave": {group: why}}; answers each with a line: {"found": [[pid, start, group, name, how,
[[major, minor], …]], …], "doubts": {group: why}, "processes": n}. A found one with no numbers may hold anything:
descriptors that are on their way to it, or that io_uring keeps for it, could not be looked at. `group` is the
container's cgroup, "" for the host's.

What it is looking at stands in shared memory, so that whoever gives up on it knows at which process it hung; and so
that a look that only has much to do is not taken for one that hangs. A container has so much time and no more: one that
needs more is a doubt of its own, and no delay to the others. Nothing is opened, read or resolved on a container's
behalf: links are asked what they lead to, by statx without a sync.
"""

from __future__ import annotations

import errno
import json
import mmap
import os
import resource
import stat
import sys
import time
from contextlib import suppress
from typing import Any, NamedTuple

from app.drivers.holders import cgroups, maps, threads, unread
from app.drivers.holders.idle import Idle
from app.drivers.holders.nodes import name_of, start_time
from app.drivers.holders.shares import Shares
from app.drivers.holders.syscalls import Statx, device

_PLAIN = {stat.S_IFCHR, stat.S_IFDIR, stat.S_IFIFO, stat.S_IFBLK, stat.S_IFLNK}
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NO_FOLDER = -100  # AT_FDCWD: the path is a whole one
_OURS = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}  # what this process lacks says nothing of the one it looks at
_DESCRIPTORS = 16_384  # for this process: it takes copies of what is in flight

Found = list[object]
Other = tuple[str, str, bool]
"""A table of descriptors, one of them that may keep others, and whether it is a socket."""


class TooMuchError(Exception):
    """A container has more to be looked at than it has time for."""


class Table(NamedTuple):
    """A table of descriptors: what may keep others in it, and whether there is nothing in it."""

    others: list[Other]
    empty: bool


class Look:
    """One look over the host for these devices."""

    def __init__(self, numbers: list[list[int]], beat: memoryview, shares: Shares, idle: Idle | None = None) -> None:
        """`idle`: what earlier looks for the same devices found; of use to one that is not thorough only."""
        self.wanted = {device(major, minor): (major, minor) for major, minor in numbers}
        self.beat = beat
        self.idle = idle
        self.found: list[Found] = []
        self.doubts: dict[str, str] = {}
        self._statx = Statx()
        self._groups = cgroups.members()
        self._shares = shares
        self._until = float("inf")  # when the container that is being looked at has had its time
        self._ways: dict[str, set[int]] = {}  # how the process that is being looked at holds what
        # By container, file system and inode, what was found to be mapped: most of it are libraries, again and again.
        self._mapped_files: dict[tuple[str, bytes], int] = {}

    def over(
        self, *, thorough: bool, turn: int, turns: int, skip: frozenset[int], leave: dict[str, str] | None = None
    ) -> int:
        """Look at every process; returns how many there were."""
        number, leave = 0, leave or {}
        self._shares.begin()
        pids = [int(text) for text in os.listdir("/proc") if text[0] <= "9"]
        if self.idle is not None:
            self.idle.begin(self.wanted, pids)
        for pid in pids:
            self.beat[0], self.beat[1] = pid, self.beat[1] + 1
            deep = thorough or pid % turns == turn
            if self.idle is not None and not deep and (known := self.idle.findings(pid)) is not None:
                self._note_all(pid, known)
                number += 1
                continue
            group = self._group(pid)
            if group in leave:
                self.doubts[group] = leave[group]
            elif pid in skip:
                self.doubts[group] = f"process {pid} could not be looked at"
            else:
                number += self._within_budget(pid, group, deep=deep)
        self.beat[0] = 0
        return number

    def _within_budget(self, pid: int, group: str, *, deep: bool) -> bool:
        """One process, as far as its container has time left."""
        began = time.monotonic()
        self._until = began + self._shares.left(group)
        self._ways = {}
        there = True
        before = self.idle.before(pid) if self.idle is not None else None
        try:
            self._check()
            there = self._at(pid, deep=deep)
            if self.idle is not None:
                self.idle.after(pid, before, self._ways)
        except TooMuchError:
            self._shares.overran(group)
            self.doubts[group] = f"it has more to look at than there is time for, process {pid} for one"
        self._shares.spend(group, time.monotonic() - began)
        self._note_all(pid, self._ways)
        return there

    def _note_all(self, pid: int, ways: dict[str, set[int]]) -> None:
        for how, numbers in ways.items():
            if numbers or how in {"in_flight", "registered"}:
                self._note(pid, how, numbers)

    def _check(self) -> None:
        if time.monotonic() > self._until:
            raise TooMuchError

    def _at(self, pid: int, *, deep: bool) -> bool:
        """One process; whether it has, or had, descriptors at all (the kernel's own threads do not)."""
        table = self._table(f"/proc/{pid}/fd", deep=deep)
        if table is None:
            return False
        if deep or table.empty:  # perhaps its first thread has ended and another goes on
            self._deep(pid, table.others)
        return True

    def _deep(self, pid: int, others: list[Other]) -> None:
        group = self._group(pid)
        if not group:
            return  # the host's own: listed by its descriptors, and left alone
        for path in threads.other_tables(pid, self._check):
            if table := self._table(path, deep=True):
                others = others + table.others
        self._mapped(pid, group)
        for other in others:
            self._check()
            self._unread(pid, group, other)

    def _unread(self, pid: int, group: str, other: Other) -> None:
        table, fd, is_socket = other
        try:
            seen = unread.look(pid, table, fd, self._check, is_socket=is_socket)
        except OSError as error:
            if error.errno not in {errno.ENOENT, errno.ESRCH, errno.EBADF}:
                self.doubts[group] = f"process {pid}, descriptor {fd}: {error}"
            return
        if seen is None:
            return
        numbers = {rdev for rdev in seen.devices if rdev in self.wanted}
        if numbers or seen.hidden:
            self._ways.setdefault(seen.how, set()).update(numbers)

    def _table(self, path: str, *, deep: bool) -> Table | None:
        """A table of descriptors; None if it is gone. If `deep` also those that may keep other descriptors."""
        try:
            folder = os.open(path, _FOLDER)
        except OSError as error:
            if error.errno in _OURS:
                raise
            return None
        others: list[Other] = []
        statx, wanted, empty = self._statx, self.wanted, True
        try:
            with os.scandir(folder) as entries:  # a list of them all could take long to make
                for number, entry in enumerate(entries):
                    empty, name = False, entry.name
                    if number % 256 == 255:
                        self._check()
                    mode, rdev = statx(folder, name.encode())
                    if rdev in wanted and mode & 0xF000 == stat.S_IFCHR:
                        self._ways.setdefault("open", set()).add(rdev)
                    elif deep and mode & 0xF000 not in _PLAIN:
                        others.append((path, name, mode & 0xF000 == stat.S_IFSOCK))
        except OSError:
            return Table(others, empty=False)
        finally:
            os.close(folder)
        return Table(others, empty)

    def _mapped(self, pid: int, group: str) -> None:
        """The wanted devices in its memory.

        One file of a container is asked about once: its number names it, unless somebody who can put device nodes into
        the container's own file system (an image's maker) plays with btrfs subvolumes too."""
        known = self._mapped_files
        for span, file in maps.mapped_files(pid):
            rdev = known.get((group, file))
            if rdev is None:
                self._check()
                mode, rdev = self._statx(_NO_FOLDER, maps.link(pid, span))
                if not mode:
                    continue  # unmapped meanwhile
                known[group, file] = rdev if mode & 0xF000 == stat.S_IFCHR else 0
            if known[group, file] in self.wanted:
                self._ways.setdefault("mapped", set()).add(known[group, file])

    def _group(self, pid: int) -> str:
        """Its container's cgroup; of one that came after the groups were read, from what it says itself."""
        return self._groups.get(pid) or cgroups.payload(pid)

    def _note(self, pid: int, how: str, numbers: set[int]) -> None:
        start = start_time(pid)
        if start is not None:
            named = sorted(self.wanted[rdev] for rdev in numbers)
            self.found.append([pid, start, cgroups.payload(pid), name_of(pid), how, named])


def main() -> None:
    """Answer requests until there are no more. The argument is the shared memory's descriptor."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, _DESCRIPTORS), most))
    unread.handle_folder()
    idle, shares = Idle(), Shares()
    with mmap.mmap(int(sys.argv[-1]), mmap.PAGESIZE) as shared, memoryview(shared) as view, view.cast("q") as beat:
        for line in sys.stdin.buffer:
            try:
                answer = _answer(json.loads(line), beat, shares, idle)
            except (OSError, MemoryError) as error:
                if isinstance(error, MemoryError) or error.errno in _OURS:
                    beat[0] = 0  # nobody's fault but this process's, which ends
                raise
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()


def _answer(asked: dict[str, Any], beat: memoryview, shares: Shares, idle: Idle) -> dict[str, object]:
    look = Look(asked["numbers"], beat, shares, None if asked["thorough"] else idle)
    number = look.over(
        thorough=asked["thorough"], turn=asked["turn"], turns=asked["turns"], skip=frozenset(asked["skip"]),
        leave=asked["leave"],
    )  # fmt: skip
    return {"found": look.found, "doubts": look.doubts, "processes": number}
