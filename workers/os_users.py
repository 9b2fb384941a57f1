"""The system users that the servers run as when Berth is started as root; else all run as whoever started it."""

from __future__ import annotations

import logging
import os
import pwd
import shutil
import stat
import subprocess
from pathlib import Path

from app.config import PORTAL_USER

log = logging.getLogger(__name__)

DATABASE = "berth-db"  # PostgreSQL (which refuses to run as root) and Valkey
PORTAL = PORTAL_USER  # the process that faces people: no host access, no database files


def server_user(name: str) -> pwd.struct_passwd | None:
    """The unprivileged user of that name, made on first use; None when this process is not root."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam(name)
    except KeyError:
        pass
    tool = shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if tool is not None:
        shell = shutil.which("nologin", path="/usr/sbin:/sbin") or "/bin/false"
        arguments = ["--system", "--no-create-home", "--home-dir", "/nonexistent", "--shell", shell, name]
        made = subprocess.run([tool, *arguments], capture_output=True, text=True, check=False)  # noqa: S603 - fixed words
        if made.returncode == 0:
            return pwd.getpwnam(name)
        log.warning("cannot make the system user %s: %s", name, made.stderr.strip())
    return pwd.getpwnam("nobody")


def own(path: Path, user: pwd.struct_passwd | None, mode: int) -> None:
    """Make the directory, give it to `user`, and set its mode."""
    path.mkdir(parents=True, exist_ok=True)
    if user is not None:
        os.chown(path, user.pw_uid, user.pw_gid)
    path.chmod(mode)


def make_passable(path: Path) -> None:
    """Let other users walk through (not list) the directories above `path`. Says which ones it had to open."""
    if os.geteuid() != 0:
        return
    for parent in path.resolve().parents:
        mode = stat.S_IMODE(parent.stat().st_mode)
        if not mode & stat.S_IXOTH:
            parent.chmod(mode | stat.S_IXOTH)
            log.warning("%s may now be passed through (not listed) by other users: the servers live below it", parent)


def readable_by_all(path: Path) -> bool:
    """Whether another user can read this file or directory and pass every directory above it."""
    needed = stat.S_IROTH | (stat.S_IXOTH if path.is_dir() else 0)
    real = path.resolve()
    return real.stat().st_mode & needed == needed and all(p.stat().st_mode & stat.S_IXOTH for p in real.parents)
