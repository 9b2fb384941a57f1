"""The lab's image with the smallest desktop that shows notifications: an X server without a screen, and dunst."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.lab.image import CACHE, image

PACKAGES = ["xvfb", "dunst", "libnotify-bin", "libglib2.0-bin", "x11-apps", "fonts-dejavu-core"]
_LEFT_OUT = ["usr/share/doc", "usr/share/locale", "usr/share/man", "var/lib/apt/lists", "var/cache/apt/archives"]
_UNUSED = ["usr/lib/*/libLLVM*", "usr/lib/*/dri/*"]  # half of it: an X server without a screen draws nothing in 3D


def desktop_image() -> Path:
    """Its tarball from the cache, built on the base image first if need be (a minute where the network is quick)."""
    base = image()
    recipe = hashlib.sha256(repr((base.name, PACKAGES, _UNUSED)).encode()).hexdigest()[:8]
    ready = CACHE / f"notified-{recipe}.tar.gz"
    with (CACHE / "notified.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ready.exists():
            _build(base, ready)
    return ready


def _build(base: Path, ready: Path) -> None:
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="notified-") as name:
        work = Path(name)
        _run("tar", "-C", name, "--numeric-owner", "-xzf", str(base))
        root = work / "rootfs"
        resolver = root / "etc/resolv.conf"
        shutil.copy("/etc/resolv.conf", resolver)
        _run("chroot", str(root), "apt-get", "-q", "update")
        _run("chroot", str(root), "apt-get", "-qy", "install", "--no-install-recommends", *PACKAGES)
        resolver.unlink()
        for left_out in _LEFT_OUT:
            shutil.rmtree(root / left_out, ignore_errors=True)
            (root / left_out).mkdir(parents=True)
        for pattern in _UNUSED:
            for path in root.glob(pattern):
                path.unlink()
        fresh = ready.with_suffix(".new")
        _run("tar", "-C", name, "--numeric-owner", "-czf", str(fresh), "metadata.yaml", "rootfs")
        fresh.rename(ready)


def _run(*command: str) -> None:
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900, env=env)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {(done.stdout + done.stderr)[-1000:]}")
