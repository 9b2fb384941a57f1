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

from app.drivers.holders import unread
from app.drivers.holders.cgroups import payload
from app.drivers.holders.nodes import start_time
from app.drivers.holders.syscalls import Statx, call, device

_MAPPED_FILE = re.compile(rb"^([0-9a-f]+-[0-9a-f]+) \S+ \S+ (\S+ [1-9]\d*)", re.MULTILINE)
_PLAIN = {stat.S_IFCHR, stat.S_IFDIR, stat.S_IFIFO, stat.S_IFBLK, stat.S_IFLNK}
_KCMP_FILES = 2
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_MAPS_LIMIT = 64 << 20  # bytes; the kernel allows 65,530 mappings
_NAME_LENGTH = 40

Found = list[object]
Other = tuple[str, str, bool]
"""A table of descriptors, one of them that may keep others, and whether it is a socket."""


class Look:
    """One look over the host for these devices."""

    def __init__(self, numbers: list[list[int]], beat: memoryview) -> None:
        self.wanted = {device(major, minor): (major, minor) for major, minor in numbers}
        self.beat = beat
        self.found: list[Found] = []
        self.doubts: dict[str, str] = {}
        self._statx = Statx()

    def over(self, *, thorough: bool, turn: int, turns: int, skip: frozenset[int]) -> int:
        """Look at every process; returns how many there were."""
        number = 0
        for text in os.listdir("/proc"):
            if text[0] > "9":
                continue
            pid = int(text)
            self.beat[0] = pid
            if pid in skip:
                group = payload(pid)
                self.doubts[group] = f"process {pid} could not be looked at"
                continue
            number += self._at(pid, deep=thorough or pid % turns == turn)
        self.beat[0] = 0
        return number

    def _at(self, pid: int, *, deep: bool) -> bool:
        """One process; whether it has, or had, descriptors at all (the kernel's own threads do not)."""
        held, others = self._table(f"/proc/{pid}/fd", deep=deep)
        if held is None:
            return False
        ways = {"open": held} if held else {}
        if deep or not others:  # a table that is empty: perhaps its first thread has ended and another goes on
            ways = self._deep(pid, ways, others or [])
        for how, numbers in ways.items():
            self._note(pid, how, numbers)
        return True

    def _deep(self, pid: int, ways: dict[str, set[int]], others: list[Other]) -> dict[str, set[int]]:
        group = payload(pid)
        if not group:
            return ways  # the host's own: listed by its descriptors, and left alone
        for table in self._tables(pid):
            held, more = self._table(table, deep=True)
            ways.setdefault("open", set()).update(held or ())
            others = others + (more or [])
        if mapped := self._mapped(pid):
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

    def _table(self, path: str, *, deep: bool) -> tuple[set[int] | None, list[Other] | None]:
        """The wanted devices in a table of descriptors; if `deep` also those that may keep other descriptors."""
        try:
            folder = os.open(path, _FOLDER)
        except OSError:
            return None, None
        held: set[int] = set()
        others: list[Other] = []
        statx, wanted = self._statx, self.wanted
        try:
            names = os.listdir(folder)
            for name in names:
                mode, rdev = statx(folder, name.encode())
                if rdev in wanted and mode & 0xF000 == stat.S_IFCHR:
                    held.add(rdev)
                elif deep and mode & 0xF000 not in _PLAIN:
                    others.append((path, name, mode & 0xF000 == stat.S_IFSOCK))
        except OSError:
            return held, others
        finally:
            os.close(folder)
        return held, others if deep or names else None

    def _tables(self, pid: int) -> Iterator[str]:
        """The tables of its threads that are not its first one's: a thread may have one of its own."""
        try:
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

    def _mapped(self, pid: int) -> set[int]:
        """The wanted devices in its memory."""
        text, base = _maps(pid)
        seen: set[bytes] = set()
        found: set[int] = set()
        if not text:
            return found
        folder = os.open(f"{base}/map_files", _FOLDER) if os.path.isdir(f"{base}/map_files") else -1
        try:
            for span, file in _MAPPED_FILE.findall(text) if folder >= 0 else ():
                if file not in seen:
                    seen.add(file)
                    mode, rdev = self._statx(folder, _unpadded(span))
                    if rdev in self.wanted and mode & 0xF000 == stat.S_IFCHR:
                        found.add(rdev)
        finally:
            if folder >= 0:
                os.close(folder)
        return found

    def _note(self, pid: int, how: str, numbers: set[int]) -> None:
        start = start_time(pid)
        if start is not None:
            named = sorted(self.wanted[rdev] for rdev in numbers)
            self.found.append([pid, start, payload(pid), _name(pid), how, named])


def _maps(pid: int) -> tuple[bytes, str]:
    """A process's memory map, and the folder it is in: that of a thread where the first one has ended."""
    try:
        folders = [f"/proc/{pid}", *(f"/proc/{pid}/task/{name}" for name in os.listdir(f"/proc/{pid}/task"))]
    except OSError:
        return b"", ""
    for folder in folders:
        try:
            with open(f"{folder}/maps", "rb") as file:
                if text := file.read(_MAPS_LIMIT):
                    return text, f"/proc/{pid}"
        except OSError:
            continue
    return b"", ""


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
