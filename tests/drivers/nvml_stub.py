"""An NVML of our own, made with the machine's compiler: what it says of which GPU stands in a file, and can change."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from app.drivers.holders.listed import Listed
from tests.require import need

SOURCE = Path(__file__).with_name("nvml_stub.c")
NOT_SUPPORTED, DRIVER_NOT_LOADED, LOST, MISMATCH, HANGS = 3, 9, 15, 18, -1


@dataclass
class Gpu:
    """What NVML says of one GPU: the errors of its handle and of its two lists, and who is on them."""

    minor: int
    compute: list[int] = field(default_factory=list)
    graphics: list[int] = field(default_factory=list)
    error: int = 0
    compute_error: int = 0
    graphics_error: int = 0

    def line(self) -> str:
        lists = ((self.compute_error, self.compute), (self.graphics_error, self.graphics))
        words = [f"{error} {len(pids)} {' '.join(map(str, pids))}" for error, pids in lists]
        return f"gpu {self.error} {self.minor} 00000000:{self.minor:02X}:00.0 {' '.join(words)}\n"


class Stub:
    """A host's NVML."""

    def __init__(self, library: Path, state: Path) -> None:
        self.environment = {"LD_LIBRARY_PATH": str(library.parent), "NVML_STUB": str(state), "NVML_OPENS": ""}
        self._state = state
        self.say()

    def say(self, *gpus: Gpu, init: int = 0) -> None:
        new = self._state.with_suffix(".new")
        new.write_text(f"init {init}\n" + "".join(gpu.line() for gpu in gpus))
        new.replace(self._state)

    def listed(self, patience: float = 5.0) -> Listed:
        return Listed(patience, self.environment)


def build(folder: Path) -> Path:
    """The library, compiled. Skips the test where it cannot be."""
    compiler = shutil.which("cc")
    need("compiler", compiler, "there is no C compiler")
    assert compiler is not None
    library = folder / "libnvidia-ml.so.1"
    made = subprocess.run(
        [compiler, "-shared", "-fPIC", "-Wall", "-o", library, SOURCE], capture_output=True, text=True, check=False
    )
    need("compiler", "stdio.h: No such file" not in made.stderr, "the C library's headers are missing")
    assert made.returncode == 0, made.stderr
    return library
