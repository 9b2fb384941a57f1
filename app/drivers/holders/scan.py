"""Looks through procfs for processes that hold a device: a program of its own, which may be abandoned when it hangs.

Reads requests, one line of JSON each: {"numbers": [[major, minor], …], "thorough": …, "turn": n, "turns": n,
"skip": [pid, …]}; answers each with a line: {"found": [[pid, start, group, name, how, [[major, minor], …]], …],
"doubts": {group: why}, "processes": n}. A found one with no numbers may hold anything: descriptors that are on their
way to it, or that io_uring keeps for it, could not be looked at. `group` is the container's cgroup, "" for the host's.

What it is looking at stands in shared memory, so that whoever gives up on it knows at which process it hung. Nothing
is opened, read or resolved on a container's behalf: links are asked what they lead to, by statx without a sync.
"""

from __future__ import annotations

import errno
import json
import mmap
import os
import re
import stat
import sys
from collections.abc import Iterator
from typing import NamedTuple

from app.drivers.holders import cgroups, unread
from app.drivers.holders.nodes import start_time
from app.drivers.holders.syscalls import Statx, call, device

_MAPPED_FILE = re.compile(rb"^([0-9a-f]+-[0-9a-f]+) \S+ \S+ (\S+ [1-9]\d*)", re.MULTILINE)
_PLAIN = {stat.S_IFCHR, stat.S_IFDIR, stat.S_IFIFO, stat.S_IFBLK, stat.S_IFLNK}
_KCMP_FILES = 2
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NO_FOLDER = -100  # AT_FDCWD: the path is a whole one
_MAPS_LIMIT = 64 << 20  # bytes; the kernel allows 65,530 mappings
_NAME_LENGTH = 40

Found = list[object]
Other = tuple[str, str, bool]
"""A table of descriptors, one of them that may keep others, and whether it is a socket."""


class Table(NamedTuple):
    """A table of descriptors: the wanted devices in it, and what may keep others."""

    held: set[int]
    others: list[Other]
    empty: bool


class Look:
    """One look over the host for these devices."""

    def __init__(self, numbers: list[list[int]], beat: memoryview) -> None:
        self.wanted = {device(major, minor): (major, minor) for major, minor in numbers}
        self.beat = beat
        self.found: list[Found] = []
        self.doubts: dict[str, str] = {}
        self._statx = Statx()
        self._groups = cgroups.members()
        # By container, file system and inode, what was found to be mapped: most of it are libraries, again and again.
        self._mapped_files: dict[tuple[str, bytes], int] = {}

    def over(self, *, thorough: bool, turn: int, turns: int, skip: frozenset[int]) -> int:
        """Look at every process; returns how many there were."""
        number = 0
        for text in os.listdir("/proc"):
            if text[0] > "9":
                continue
            pid = int(text)
            self.beat[0] = pid
            if pid in skip:
                self.doubts[self._group(pid)] = f"process {pid} could not be looked at"
                continue
            number += self._at(pid, deep=thorough or pid % turns == turn)
        self.beat[0] = 0
        return number

    def _at(self, pid: int, *, deep: bool) -> bool:
        """One process; whether it has, or had, descriptors at all (the kernel's own threads do not)."""
        table = self._table(f"/proc/{pid}/fd", deep=deep)
        if table is None:
            return False
        ways = {"open": table.held} if table.held else {}
        if deep or table.empty:  # perhaps its first thread has ended and another goes on
            ways = self._deep(pid, ways, table.others)
        for how, numbers in ways.items():
            self._note(pid, how, numbers)
        return True

    def _deep(self, pid: int, ways: dict[str, set[int]], others: list[Other]) -> dict[str, set[int]]:
        group = self._group(pid)
        if not group:
            return ways  # the host's own: listed by its descriptors, and left alone
        for path in self._tables(pid):
            if table := self._table(path, deep=True):
                ways.setdefault("open", set()).update(table.held)
                others = others + table.others
        if mapped := self._mapped(pid, group):
            ways["mapped"] = mapped
        for other in others:
            self._unread(pid, group, other, ways)
        return {how: numbers for how, numbers in ways.items() if numbers or how in {"in_flight", "registered"}}

    def _unread(self, pid: int, group: str, other: Other, ways: dict[str, set[int]]) -> None:
        table, fd, is_socket = other
        try:
            seen = unread.look(pid, table, fd, is_socket=is_socket)
        except OSError as error:
            if error.errno not in {errno.ENOENT, errno.ESRCH, errno.EBADF}:
                self.doubts[group] = f"process {pid}, descriptor {fd}: {error}"
            return
        if seen is None:
            return
        numbers = {rdev for rdev in seen.devices if rdev in self.wanted}
        if numbers or seen.hidden:
            ways.setdefault(seen.how, set()).update(numbers)

    def _table(self, path: str, *, deep: bool) -> Table | None:
        """A table of descriptors; None if it is gone. If `deep` also those that may keep other descriptors."""
        try:
            folder = os.open(path, _FOLDER)
        except OSError:
            return None
        held: set[int] = set()
        others: list[Other] = []
        statx, wanted = self._statx, self.wanted
        names: list[str] = []
        try:
            names = os.listdir(folder)
            for name in names:
                mode, rdev = statx(folder, name.encode())
                if rdev in wanted and mode & 0xF000 == stat.S_IFCHR:
                    held.add(rdev)
                elif deep and mode & 0xF000 not in _PLAIN:
                    others.append((path, name, mode & 0xF000 == stat.S_IFSOCK))
        except OSError:
            return Table(held, others, empty=False)
        finally:
            os.close(folder)
        return Table(held, others, empty=not names)

    def _tables(self, pid: int) -> Iterator[str]:
        """The tables of its threads that are not its first one's: a thread may have one of its own."""
        try:
            if os.stat(f"/proc/{pid}/task").st_nlink == 3:  # one thread: the commonest case, and the cheapest
                return
            threads = [int(name) for name in os.listdir(f"/proc/{pid}/task")]
        except OSError:
            return
        reference = pid
        for thread in threads:
            if thread == pid:
                continue
            try:
                if call("kcmp", reference, thread, _KCMP_FILES, 0, 0) == 0:
                    continue
            except OSError:
                pass  # the first one has ended, or the kernel cannot compare: look at each
            yield f"/proc/{pid}/task/{thread}/fd"

    def _mapped(self, pid: int, group: str) -> set[int]:
        """The wanted devices in its memory.

        One file of a container is asked about once: its number names it, unless somebody who can put device nodes into
        the container's own file system (an image's maker) plays with btrfs subvolumes too."""
        known, found = self._mapped_files, set()
        for span, file in _MAPPED_FILE.findall(_maps(pid)):
            rdev = known.get((group, file))
            if rdev is None:
                mode, rdev = self._statx(_NO_FOLDER, b"/proc/%d/map_files/%s" % (pid, _unpadded(span)))
                if not mode:
                    continue  # unmapped meanwhile
                known[group, file] = rdev if mode & 0xF000 == stat.S_IFCHR else 0
            if known[group, file] in self.wanted:
                found.add(known[group, file])
        return found

    def _group(self, pid: int) -> str:
        """Its container's cgroup; of one that came after the groups were read, from what it says itself."""
        return self._groups.get(pid) or cgroups.payload(pid)

    def _note(self, pid: int, how: str, numbers: set[int]) -> None:
        start = start_time(pid)
        if start is not None:
            named = sorted(self.wanted[rdev] for rdev in numbers)
            self.found.append([pid, start, cgroups.payload(pid), _name(pid), how, named])


def _maps(pid: int) -> bytes:
    """A process's memory map; of another thread where the first one has ended."""
    if text := _read_maps(f"/proc/{pid}/maps"):
        return text
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return b""
    return next((text for name in threads if (text := _read_maps(f"/proc/{pid}/task/{name}/maps"))), b"")


def _read_maps(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_MAPS_LIMIT)
    except OSError:
        return b""


def _unpadded(span: bytes) -> bytes:
    """`maps` pads addresses with zeros to eight digits, `map_files` does not."""
    start, _, end = span.partition(b"-")
    return (start.lstrip(b"0") or b"0") + b"-" + (end.lstrip(b"0") or b"0")


def _name(pid: int) -> str:
    """What a process calls itself, as a record may hold it."""
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:
            text = file.read(64).decode(errors="replace").rstrip("\n")
    except OSError:
        return ""
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:_NAME_LENGTH]


def main() -> None:
    """Answer requests until there are no more. The argument is the shared memory's descriptor."""
    with mmap.mmap(int(sys.argv[-1]), mmap.PAGESIZE) as shared, memoryview(shared) as view, view.cast("q") as beat:
        for line in sys.stdin.buffer:
            asked = json.loads(line)
            look = Look(asked["numbers"], beat)
            number = look.over(
                thorough=asked["thorough"], turn=asked["turn"], turns=asked["turns"], skip=frozenset(asked["skip"])
            )
            answer = {"found": look.found, "doubts": look.doubts, "processes": number}
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()
