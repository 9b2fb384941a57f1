"""Prometheus' promtool: from the PATH, else out of Debian's package. That is not installed, as it starts a server."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.lab.image import CACHE

NAME = "promtool"


def path() -> Path | None:
    """Where it is; None where it cannot be had."""
    found = shutil.which(NAME)
    if found:
        return Path(found)
    kept = CACHE / NAME
    if not kept.exists() and os.geteuid() == 0 and shutil.which("apt-get"):
        _fetch(kept)
    return kept if kept.exists() else None


def _fetch(kept: Path) -> None:
    """Taken out of the package in one step: what is half done is not there."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
        for words in (["update"], ["download", "prometheus"]):
            done = subprocess.run(["apt-get", "-qq", *words], cwd=folder, check=False, capture_output=True)
        for package in Path(folder).glob("prometheus_*.deb"):
            subprocess.run(["dpkg-deb", "-x", package, folder], check=True)
            Path(folder, "usr", "bin", NAME).rename(kept)
        assert kept.exists() or done.returncode, "the package has no promtool"


def run(*words: str | Path, said: str | None = None) -> str:
    """What it says; it must find no fault. `said`: its input."""
    tool = path()
    assert tool is not None
    done = subprocess.run([tool, *words], input=said, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr
