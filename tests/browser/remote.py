"""A screen that nobody sees, and FreeRDP on it: somebody at a remote desktop."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("Xvfb", "xfreerdp", "import", "convert")


def missing() -> list[str]:
    """What this machine lacks for it."""
    return [name for name in PROGRAMS if not shutil.which(name)]


@dataclass
class Screen:
    """An X server with its number. `folder`: where its clients keep what they keep."""

    number: int
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "DISPLAY": f":{self.number}", "HOME": str(self.folder)}

    @contextmanager
    def connect(self, rdp_file: Path, password: str) -> Iterator[subprocess.Popen[bytes]]:
        """FreeRDP with the file as it was downloaded, and the password as it was shown."""
        with (self.folder / "freerdp.log").open("wb") as log:
            command = ["xfreerdp", str(rdp_file), f"/p:{password}", "/cert:ignore"]
            client = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            yield client
        finally:
            client.terminate()
            with suppress(subprocess.TimeoutExpired):
                client.wait(5)
            client.kill()

    def said(self) -> str:
        """What FreeRDP said."""
        return (self.folder / "freerdp.log").read_text(errors="replace")[-2000:]

    def picture(self, path: Path, part: str = "1600x900+0+0") -> int:
        """Take a picture of it; how many colours a part of it has."""
        command = ["import", "-window", "root", str(path)]
        subprocess.run(command, env=self.environment, check=True, timeout=20, capture_output=True)
        command = ["convert", str(path), "-crop", part, "+repage", "-format", "%k", "info:"]
        return int(subprocess.run(command, check=True, timeout=20, capture_output=True, text=True).stdout)


@contextmanager
def screen(folder: Path) -> Iterator[Screen]:
    """A screen of 1600 by 900, gone afterwards."""
    read, write = os.pipe()
    command = ["Xvfb", "-displayfd", str(write), "-screen", "0", "1600x900x24", "-nolisten", "tcp"]
    server = subprocess.Popen(command, pass_fds=[write], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.close(write)
    try:
        with os.fdopen(read) as told:
            yield Screen(int(told.readline()), folder)
    finally:
        server.terminate()
        server.wait(10)
