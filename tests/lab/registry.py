"""The labs of this machine, written down so that what a killed test run left behind can be found and removed."""

from __future__ import annotations

import fcntl
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

FOLDER = Path("/run/berth-lab")
SHARED = {"nvidiactl": (195, 255), "nvidia-uvm": (511, 0)}  # nodes that go along with every GPU
READABLE = ((1, 7), (1, 5))  # /dev/full and /dev/zero in turns: a host's neighbours can be told apart
_FIRST_MINOR = 32  # out of the way of real GPUs


@dataclass
class Record:
    """One lab. `owner`: process id and start time of the program that will take it down, or nothing: it stays."""

    directory: str
    minors: list[int]
    owner: list[int]
    made: list[str]  # nodes under /dev
    daemon: int = 0

    @property
    def orphaned(self) -> bool:
        """Whether its owner is gone."""
        return bool(self.owner) and self.owner[1] != start_time(self.owner[0])


def start_time(pid: int) -> int:
    """A process's start in clock ticks, or -1: with the id it names one process."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19])
    except OSError:
        return -1


def records() -> list[Record]:
    """All labs that have not been taken down."""
    found = []
    for path in sorted(FOLDER.glob("*.json")) if FOLDER.is_dir() else []:
        with suppress(FileNotFoundError):  # taken down in this moment
            found.append(Record(**json.loads(path.read_text())))
    return found


def find(directory: Path) -> Record | None:
    """The record of the lab in `directory`."""
    return next((record for record in records() if record.directory == str(directory)), None)


def write(record: Record) -> None:
    """Keep or replace a lab's record."""
    path = _path(record.directory)
    path.with_suffix(".new").write_text(json.dumps(asdict(record)))
    path.with_suffix(".new").rename(path)


def enter(directory: Path, count: int, first_minor: int | None, *, owned: bool, readable: bool) -> Record:
    """Write a lab down and make its device nodes; without a first minor, the lowest that nobody uses."""
    with locked():
        taken = {minor for record in records() for minor in record.minors}
        taken |= {int(path.name[6:]) for path in Path("/dev").glob("nvidia[0-9]*") if path.name[6:].isdigit()}
        first = first_minor
        if first is None:
            first = next(n for n in range(_FIRST_MINOR, 254 - count) if not taken & set(range(n, n + count)))
        minors = list(range(first, first + count))
        owner = [os.getpid(), start_time(os.getpid())] if owned else []
        record = Record(str(directory), minors, owner, [])
        nodes = {f"nvidia{minor}": (195, minor) for minor in minors} | SHARED
        nodes |= {f"dri/card{minor}": READABLE[place % 2] for place, minor in enumerate(minors) if readable}
        record.made = [name for name in nodes if not Path("/dev", name).exists()]
        write(record)
        for name in record.made:
            make_node(name, *nodes[name])
        return record


def leave(record: Record) -> None:
    """Strike a lab off and remove the nodes that only it used."""
    with locked():
        _path(record.directory).unlink(missing_ok=True)
        others = records()
        kept = {f"nvidia{minor}" for other in others for minor in other.minors} | {n for o in others for n in o.made}
        inherits = [name for name in SHARED if name in record.made and others]
        for name in set(record.made) - kept - set(inherits):
            Path("/dev", name).unlink(missing_ok=True)
        if inherits:  # the last lab to go removes them
            others[0].made += [name for name in inherits if name not in others[0].made]
            write(others[0])


def make_node(name: str, major: int, minor: int) -> None:
    """Make a character device under /dev that everybody may open, as NVIDIA's driver does."""
    path = Path("/dev", name)
    path.parent.mkdir(exist_ok=True)
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(major, minor))
    path.chmod(0o666)


def _path(directory: str) -> Path:
    return FOLDER / (directory.strip("/").replace("/", "-") + ".json")


@contextmanager
def locked(name: str = "lock") -> Iterator[None]:
    """One program at a time."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / name).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
