"""A library of NVIDIA's for a host that has none: what it lends to machines can then be loaded in them."""

from __future__ import annotations

import subprocess
from pathlib import Path

LOADED = "580.95.05"  # of the driver that a lab's host has loaded
WHICH = "import ctypes; print(ctypes.CDLL('libnvidia-ml.so.1').version())"  # in a machine: its first number


def listing(folder: Path, version: str) -> str:
    """Build one that says its version; returns what `ldconfig -p` of a host that has it prints."""
    file, link = folder / f"libnvidia-ml.so.{version}", folder / f"{version}.so.1"
    source = f"int version(void) {{ return {version.partition('.')[0]}; }}"
    build = ["cc", "-shared", "-fPIC", "-Wl,-soname,libnvidia-ml.so.1", "-x", "c", "-", "-o", str(file)]
    subprocess.run(build, input=source, text=True, check=True)
    link.symlink_to(file)
    return f"\tlibnvidia-ml.so.1 (libc6,x86-64) => {link}\n"
