"""An NVML of our own, made with the machine's compiler: what it says of which GPU stands in a file, and can change."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.drivers.gauges import NvmlGauges
from app.drivers.holders.listed import Listed
from tests.require import need

SOURCE = Path(__file__).with_name("nvml_stub.c")
NOT_SUPPORTED, DRIVER_NOT_LOADED, LOST, MISMATCH, HANGS = 3, 9, 15, 18, -1


NOT_SAID = -1
GIB = 1024  # MiB


@dataclass
class Process:
    """What NVML says of a process besides that it is listed: MiB, its MIG instance (and 16 times the compute instance
    in that), per cent of the GPU."""

    memory: int = 1
    part: int = 0xFFFFFFFF
    share: int = NOT_SAID


@dataclass
class Gpu:
    """What NVML says of one GPU: the errors of its handle and of its two lists, who is on them, and what it is at.

    `values`: by nvml_stub.c's keys; one that is missing is not supported. `spans`: process, from, to (microseconds
    since 1970) and per cent: when it was how busy."""

    minor: int
    compute: list[int] = field(default_factory=list)
    graphics: list[int] = field(default_factory=list)
    error: int = 0
    compute_error: int = 0
    graphics_error: int = 0
    values: dict[str, tuple[int, ...]] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    known: dict[int, Process] = field(default_factory=dict)
    spans: list[tuple[int, int, int, int]] = field(default_factory=list)

    @property
    def pci_address(self) -> str:
        return f"0000:{self.minor:02x}:00.0"

    def text(self) -> str:
        lists = ((self.compute_error, self.compute), (self.graphics_error, self.graphics))
        words = [f"{error} {len(pids)} {' '.join(map(str, pids))}" for error, pids in lists]
        lines = [f"gpu {self.error} {self.minor} 00000000:{self.minor:02X}:00.0 {' '.join(words)}"]
        for key in {**self.values, **self.errors}:
            numbers = " ".join(map(str, [*self.values.get(key, ()), 0, 0, 0][:3]))
            lines.append(f"value {self.minor} {key} {self.errors.get(key, 0)} {numbers}")
        for pid, one in self.known.items():
            lines.append(f"proc {self.minor} {pid} {one.memory} {one.part} {one.share}")
        lines += [f"span {self.minor} {' '.join(map(str, span))}" for span in self.spans]
        return "\n".join(lines) + "\n"


def whole(minor: int, utilisation: int = 0, **more: Any) -> Gpu:
    """A GPU that says all of itself."""
    values = {
        "rates": (utilisation, utilisation // 2), "memory": (48 * GIB, 2 * GIB, 512), "limit": (300_000,),
        "power": (60_000 + 2000 * utilisation,), "temperature": (40 + utilisation // 2,), "sm": (1410,),
        "mem": (8001,), "ecc": (0,), "throttle": (0,),
    }  # fmt: skip
    return Gpu(minor, values=values | more.pop("values", {}), **more)


class Stub:
    """A host's NVML."""

    def __init__(self, library: Path, state: Path) -> None:
        self.environment = {"LD_LIBRARY_PATH": str(library.parent), "NVML_STUB": str(state), "NVML_OPENS": ""}
        self._state = state
        self.say()

    def say(self, *gpus: Gpu, init: int = 0, ahead: int = 0) -> None:
        """`ahead`: by how many microseconds its clock is."""
        new = self._state.with_suffix(".new")
        new.write_text(f"init {init}\nclock {ahead}\n" + "".join(gpu.text() for gpu in gpus))
        new.replace(self._state)

    def listed(self, patience: float = 5.0) -> Listed:
        return Listed(patience, self.environment)

    def gauges(self, patience: float = 5.0) -> NvmlGauges:
        made = NvmlGauges(self.environment)
        made.patience = patience
        return made


def build(folder: Path) -> Path:
    """The library, compiled. Skips the test where it cannot be."""
    compiler = shutil.which("cc")
    need("compiler", compiler, "there is no C compiler")
    assert compiler is not None
    library = folder / "libnvidia-ml.so.1"
    made = subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-Wall", "-o", library, SOURCE],
        capture_output=True,
        text=True,
        check=False,
    )
    need("compiler", "stdio.h: No such file" not in made.stderr, "the C library's headers are missing")
    assert made.returncode == 0, made.stderr
    return library
