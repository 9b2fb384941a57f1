"""What an LXD older than 5.0.4 needs on Linux 6.9 and newer to try out rightly whether a place can be id-mapped."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.require import need

SOURCE = Path(__file__).with_name("idmapped.c")


def build(folder: Path) -> Path:
    """The library, compiled. Skips the test where it cannot be."""
    compiler = shutil.which("cc")
    need("compiler", compiler, "there is no C compiler")
    assert compiler is not None
    library = folder / "idmapped.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-Wall", "-Werror", "-o", library, SOURCE, "-ldl"], check=True)
    return library
