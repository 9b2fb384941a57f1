"""Looks at directories that are to be shared, and makes them ready. A process of its own, standard library only: a file
system may hang, and whoever asks gives up on the process then.

In: a JSON list of wishes (app.drivers.shares.Wish) and LXD's directory. Out: for each a list of [level, code, detail].
Nothing is opened through a link, and nothing that people wrote is walked: only the top of a directory is changed, and
the directories that stand directly in one where each person has their own.
"""

from __future__ import annotations

import ctypes
import json
import os
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

Wish = dict[str, Any]
Said = list[str]

OPEN_TREE, MOUNT_SETATTR = 428, 442  # the same on all architectures
CLONE, EMPTY_PATH, IDMAP = 1, 0x1000, 0x00100000
DIRECTORY = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
GROUP_WRITES = stat.S_ISGID | 0o070
DEFAULT_ACL = "system.posix_acl_default"
_libc = ctypes.CDLL(None, use_errno=True)


class RefusedError(Exception):
    """Something speaks against the directory: a code and a detail."""


def look(wish: Wish, lxd_dir: str) -> list[Said]:
    """All that is to be said of one wish."""
    try:
        descriptor = reach(wish["source"])
    except RefusedError as refusal:
        return [["bad", *refusal.args]]
    try:
        found = [*place(wish["source"], lxd_dir), *file_system(descriptor, wish), *owners(descriptor, wish)]
        if wish["prepare"] and not any(level == "bad" for level, *_ in found):
            found += prepare(descriptor, wish)
    finally:
        os.close(descriptor)
    return found


def reach(path: str) -> int:
    """The directory, opened step by step from the root. No step may be a link, or belong to anybody but root: whoever
    owns one could put something else there between this look and LXD's."""
    descriptor = os.open("/", DIRECTORY | os.O_RDONLY)
    at = ""
    for name in path.strip("/").split("/"):
        info = os.fstat(descriptor)
        sticky = info.st_mode & stat.S_ISVTX
        if info.st_uid != 0 or (info.st_mode & 0o022 and not sticky):
            os.close(descriptor)
            raise RefusedError("parent", at or "/")
        parent, at = descriptor, f"{at}/{name}"
        try:
            info = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if stat.S_ISLNK(info.st_mode):
                raise RefusedError("link", at)
            if sticky and info.st_uid != 0:
                raise RefusedError("parent", at)
            descriptor = os.open(name, DIRECTORY | os.O_RDONLY, dir_fd=parent)
        except FileNotFoundError:
            raise RefusedError("missing", at) from None
        except OSError as error:
            raise RefusedError("directory", f"{at}: {error.strerror}") from None
        finally:
            os.close(parent)
    return descriptor


def place(path: str, lxd_dir: str) -> Iterator[Said]:
    """LXD's own directory is nobody's to see."""
    if lxd_dir and (f"{path}/".startswith(f"{lxd_dir}/") or f"{lxd_dir}/".startswith(f"{path}/")):
        yield ["bad", "lxd", lxd_dir]


def file_system(descriptor: int, wish: Wish) -> Iterator[Said]:
    """What the mount that the directory lies on allows."""
    kind, point = mount_of(descriptor)
    flags = os.fstatvfs(descriptor).f_flag
    if not wish["read_only"]:
        if flags & os.ST_RDONLY:
            yield ["bad", "read_only", point]
        missing = [name for name, flag in (("nosuid", os.ST_NOSUID), ("nodev", os.ST_NODEV)) if not flags & flag]
        if missing:
            yield ["bad", "flags", f"{point}: {', '.join(missing)}"]
    if why := not_mapped(descriptor):
        yield ["bad", "idmap", f"{kind}: {why}"]


def owners(descriptor: int, wish: Wish) -> Iterator[Said]:
    """Where people write, the top of the directory is root's and nobody else has been let in by hand."""
    info = os.fstat(descriptor)
    if wish["read_only"]:
        return
    if info.st_uid != 0:
        yield ["bad", "owner", str(info.st_uid)]
    elif wish["own"] and info.st_mode & 0o022:
        yield ["bad", "open", f"{info.st_mode & 0o7777:04o}"]
    elif not wish["own"] and info.st_gid not in (0, wish["gid"]):
        yield ["bad", "group", str(info.st_gid)]


def prepare(descriptor: int, wish: Wish) -> Iterator[Said]:
    """Make it ready; what could not be done for one person is said and keeps nobody else."""
    if wish["read_only"]:
        return
    if wish["own"]:
        for name, uid in wish["people"]:
            if trouble := own_directory(descriptor, name, uid):
                yield ["warn", "person", f"{name}: {trouble}"]
        return
    mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
    os.fchown(descriptor, -1, wish["gid"])
    os.fchmod(descriptor, (mode | GROUP_WRITES) & ~0o002)
    with suppress(OSError):  # a file system without lists: what people make has the group, and their own umask
        os.setxattr(descriptor, DEFAULT_ACL, acl())


def own_directory(parent: int, name: str, uid: int) -> str:
    """A person's own directory, made or found; what is wrong with it, or ""."""
    if "/" in name or name.startswith("."):
        return "no name for a directory"
    with suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=parent)
    try:
        descriptor = os.open(name, DIRECTORY | os.O_RDONLY, dir_fd=parent)
    except OSError as error:
        return str(error.strerror)
    try:
        info = os.fstat(descriptor)
        if info.st_uid == 0:  # just made, or left so by a look that was ended half-way
            os.fchown(descriptor, uid, uid)
            os.fchmod(descriptor, 0o700)
        elif info.st_uid != uid:
            return f"belongs to {info.st_uid}, not to {uid}"
    finally:
        os.close(descriptor)
    return ""


def acl() -> bytes:
    """A default list of access rights: owner and group write, whatever somebody's umask says; others see nothing."""
    nobody, entries = 0xFFFFFFFF, [(0x01, 7), (0x04, 7), (0x10, 7), (0x20, 0)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", tag, rights, nobody) for tag, rights in entries)


def mount_of(descriptor: int) -> tuple[str, str]:
    """Kind of file system and mount point of an open directory."""
    with open(f"/proc/self/fdinfo/{descriptor}") as info:
        number = next(line.split()[1] for line in info if line.startswith("mnt_id:"))
    with open("/proc/self/mountinfo") as mounts:
        for line in mounts:
            fields = line.split()
            if fields[0] == number:
                return fields[fields.index("-") + 1], fields[4]
    return "?", "?"


def not_mapped(descriptor: int) -> str:
    """Why this place cannot be mounted id-mapped, tried out on a copy of the mount that nobody sees; "" if it can."""
    try:
        copy = call(OPEN_TREE, descriptor, b"", CLONE | os.O_CLOEXEC | EMPTY_PATH)
        with namespace() as user:
            attributes = struct.pack("QQQQ", IDMAP, 0, 0, user)
            call(MOUNT_SETATTR, copy, b"", EMPTY_PATH, attributes, len(attributes))
    except OSError as error:
        return error.strerror or str(error)
    os.close(copy)
    return ""


@contextmanager
def namespace() -> Iterator[int]:
    """A user namespace that maps somebody."""
    command = ["unshare", "--user", "--map-root-user", "sh", "-c", "echo; read end"]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=quiet) as child:  # noqa: S603
        assert child.stdin is not None
        assert child.stdout is not None
        if not child.stdout.readline():
            raise OSError(1, "no user namespaces on this host")
        user = os.open(f"/proc/{child.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield user
        finally:
            os.close(user)
            child.stdin.close()


def call(number: int, *arguments: int | bytes) -> int:
    """A system call that Python has no name for. Raises OSError."""
    ctypes.set_errno(0)
    given = [ctypes.c_long(value) if isinstance(value, int) else ctypes.c_char_p(value) for value in arguments]
    result = int(_libc.syscall(ctypes.c_long(number), *given))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def main() -> None:
    """Answer one list of wishes."""
    os.umask(0o077)
    asked = json.load(sys.stdin)
    json.dump([look(wish, asked["lxd_dir"]) for wish in asked["wishes"]], sys.stdout)


if __name__ == "__main__":
    main()
