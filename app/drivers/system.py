"""The machine this program runs on, to be set up: its programs and its files. Never asks anybody anything."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

NOT_FOUND = 127


@dataclass(frozen=True)
class Done:
    """How a program ended: its status, what it printed, and what it complained about."""

    status: int
    text: str = ""
    complaint: str = ""

    @property
    def ok(self) -> bool:
        """Whether it did what it was asked."""
        return self.status == 0


class System:
    """Programs and files under `root`; the environment of this program, with `more`."""

    def __init__(self, root: Path = Path("/"), more: Mapping[str, str] | None = None) -> None:
        self._root = root
        path = os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin:/snap/bin"
        self._environment = {**os.environ, "PATH": path, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
        self._environment.update(more or {})

    def environ(self, name: str) -> str:
        """A variable of the environment; "" if it is not set."""
        return self._environment.get(name, "")

    def run(self, argv: Sequence[str], limit: float = 60, more: Mapping[str, str] | None = None) -> Done:
        """Run a program and wait `limit` seconds for its end. One that is missing or takes longer has failed."""
        try:
            done = subprocess.run(  # noqa: S603 - an argument list; who calls is root and means it
                argv, env={**self._environment, **(more or {})}, stdin=subprocess.DEVNULL, capture_output=True,
                text=True, errors="replace", timeout=limit, check=False,
            )  # fmt: skip
        except FileNotFoundError:
            return Done(NOT_FOUND, complaint=f"{argv[0]}: no such program")
        except subprocess.TimeoutExpired:
            return Done(124, complaint=f"not done within {limit:.0f} s")
        return Done(done.returncode, done.stdout, done.stderr.strip())

    def read(self, path: str) -> str | None:
        """A file's text; None if there is no such file, or it may not be read."""
        try:
            return self._at(path).read_text(errors="replace")
        except OSError:
            return None

    def exists(self, path: str) -> bool:
        """Whether there is anything of that name."""
        return self._at(path).exists()

    def busy(self, device: str) -> bool:
        """Whether the kernel uses the block device: a file system in whatever namespace, part of something."""
        try:
            os.close(os.open(self._at(device), os.O_RDONLY | os.O_EXCL))
        except OSError as error:
            return error.errno == errno.EBUSY
        return False

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Put a file in place, whole or not at all."""
        place = self._at(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        fresh = place.with_name(f".{place.name}.new")
        fresh.unlink(missing_ok=True)
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        fresh.rename(place)

    def _at(self, path: str) -> Path:
        return self._root / path.lstrip("/")
