"""Files of images that an admin laid into a directory of the host: looked through before LXD sees any of them.

Only root can write there, so that nobody changes a file behind our back; a file is chosen by its name alone.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from app.drivers.base import GiveUp

FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,119}")
PROPERTY = "berth.template"  # of images that are there for a template's sake, with its number
MOST_SHOWN = 200
_LIMIT = 2 * 3600.0  # seconds for one file
_ROOT = Path(__file__).parents[3]
_OURS = ".berth-"  # with the template's number: what is kept of an image while it is being made


@dataclass(frozen=True)
class Sifted:
    """What was kept of a file: an archive that LXD can be given, and what was found. `sha256` is the whole file's."""

    path: Path
    sha256: str
    entries: int
    left_out: int


class ImageFiles:
    """The image files in one directory of this machine."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def names(self) -> list[str]:
        """The files that could be chosen, the directory made if need be; none where it is not safe."""
        with suppress(OSError, GiveUp), self._opened("Look for image files") as folder:
            found = (entry.name for entry in os.scandir(folder) if entry.is_file(follow_symlinks=False))
            return sorted(name for name in found if FILE_NAME.fullmatch(name))[:MOST_SHOWN]
        return []

    @contextmanager
    def sifted(self, name: str, template: int, expected: str, told: Callable[[int], None]) -> Iterator[Sifted]:
        """Look through a file and keep what a machine is made of; that is gone again afterwards. `expected`: the
        SHA-256 that it must have, "" for any. Raises GiveUp."""
        what = f"Take the image {name}"
        self.clear(template)
        with self._opened(what) as folder, _checked(folder, name, what, self.directory) as source:
            path = self.directory / f"{_OURS}{template}.tar"
            try:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                with os.fdopen(os.open(path.name, flags, 0o600, dir_fd=folder), "wb") as target:
                    found = _sift(source, target, template, what, told)
                if expected and found["sha256"] != expected:
                    detail = f"its SHA-256 is {found['sha256']}, and {expected} was asked for"
                    raise GiveUp(what, detail, "Copy it once more, or look for another source.")
                yield Sifted(path, str(found["sha256"]), int(found["entries"]), int(found["left_out"]))
            except OSError as error:
                raise GiveUp(what, str(error), f"Look at the disk below {self.directory}.") from error
            finally:
                path.unlink(missing_ok=True)

    def put(self, file: Path, name: str) -> str:
        """Copy a file in; under which name it lies there. One that lies there already stays. Raises GiveUp."""
        what = f"Take the image {file.name}"
        with self._opened(what):
            if file.resolve().parent == self.directory.resolve():
                return file.name
        target = self.directory / name
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with file.open("rb") as source, os.fdopen(os.open(target, flags, 0o600), "wb") as copy:
                shutil.copyfileobj(source, copy, 1 << 20)
        except FileExistsError as error:
            raise GiveUp(what, f"{target} is there already", "Remove it, if nobody needs it.") from error
        except OSError as error:
            target.unlink(missing_ok=True)
            raise GiveUp(what, str(error), f"Make room below {self.directory}, or look at the file.") from error
        return name

    def remove(self, name: str) -> None:
        """Remove a file; none is fine."""
        if FILE_NAME.fullmatch(name):
            (self.directory / name).unlink(missing_ok=True)

    def clear(self, template: int) -> None:
        """Remove what a try that was killed has left."""
        with suppress(OSError):
            (self.directory / f"{_OURS}{template}.tar").unlink()

    @contextmanager
    def _opened(self, what: str) -> Iterator[int]:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            _only_ours(folder, what, str(self.directory))
            yield folder
        finally:
            os.close(folder)


@contextmanager
def _checked(folder: int, name: str, what: str, directory: Path) -> Iterator[IO[bytes]]:
    """The file, open, if it is a plain one that nobody else can write to."""
    if not FILE_NAME.fullmatch(name):
        raise GiveUp(what, "that is no name of a file", "Letters, digits, dots and hyphens.")
    try:
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError as error:
        reason = f"there is no such file in {directory} on this host, or it is a link"
        raise GiveUp(what, reason, "Put it there as root.") from error
    try:
        _only_ours(file, what, name)
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise GiveUp(what, "it is no plain file", "Choose another one.")
        with os.fdopen(file, "rb", closefd=False) as opened:
            yield opened
    finally:
        os.close(file)


def _only_ours(number: int, what: str, name: str) -> None:
    found = os.fstat(number)
    if found.st_uid not in {0, os.geteuid()} or found.st_mode & 0o022:
        fix = f"As root, when you have made sure of what is in it: chown root: {name}; chmod go-w {name}"
        raise GiveUp(what, f"others than root can write to {name}", fix)


def _sift(
    source: IO[bytes], target: IO[bytes], template: int, what: str, told: Callable[[int], None]
) -> dict[str, Any]:
    numbers = (source.fileno(), target.fileno())
    wish = {
        "source": numbers[0],
        "target": numbers[1],
        "nobody": pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else 0,
        "machine": os.uname().machine,
        "properties": {PROPERTY: str(template)},
    }
    process = subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-m", "app.drivers.image_files.sieve", json.dumps(wish)],
        cwd=_ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, pass_fds=numbers,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}, text=True,
    )  # fmt: skip
    alarm = threading.Timer(_LIMIT, process.kill)
    alarm.start()
    try:
        last = _listen(process, told)
    finally:
        alarm.cancel()
        process.kill()
        process.wait()
    if "found" in last:
        return dict(last["found"])
    refused = str(last.get("refused", "looking through it took too long, or more memory than an image is worth"))
    raise GiveUp(what, refused, "Nothing of it was used.")


def _listen(process: subprocess.Popen[str], told: Callable[[int], None]) -> dict[str, Any]:
    """What the sieve says last; what it reads may have taken it over, so that too is only looked at."""
    last: dict[str, Any] = {}
    assert process.stdout is not None
    while line := process.stdout.readline(4096):
        with suppress(ValueError, TypeError):
            last = dict(json.loads(line))
            if "percent" in last:
                told(min(max(int(last["percent"]), 0), 100))
    return last
