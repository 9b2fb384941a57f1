"""Descriptors that a process keeps outside its table: on their way to it in a socket, or registered with io_uring.

A descriptor in flight is in nobody's table and works when it is received. The kernel counts them in the socket's
fdinfo; a copy of the socket lets them be looked at without taking them.
"""

from __future__ import annotations

import array
import errno
import os
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from app.drivers.holders.syscalls import Statx, call

_IN_FLIGHT = re.compile(rb"^scm_fds:\s*([1-9]\d*)", re.MULTILINE)
_REGISTERED = re.compile(rb"^UserFiles:\s*(\d+)", re.MULTILINE)
_RING = "anon_inode:[io_uring]"  # no path can read like this: they begin with a slash
_INFO_LIMIT = 1 << 20
_SO_PEEK_OFF = 42
_SCM_MAX = 253  # descriptors in one message
_MESSAGES_AT_MOST, _DEPTH_AT_MOST = 256, 4
_INNER_AT_MOST = 1024  # sockets that are on their way in one socket, with something on its way in themselves


@dataclass
class Seen:
    """What was found: the devices, and whether some could not be looked at."""

    how: str
    devices: set[int] = field(default_factory=set)
    hidden: bool = False


Check = Callable[[], None]
"""Raises when it has taken too long."""


def look(pid: int, table: str, fd: str, check: Check, *, is_socket: bool) -> Seen | None:
    """What descriptor `fd` of the process keeps for it, if anything. Raises OSError, and what `check` does."""
    if not is_socket:
        return Seen("registered", hidden=True) if _registered(f"{table}/{fd}", f"{table}info/{fd}") else None
    match = _IN_FLIGHT.search(_info(f"{table}info/{fd}"))
    if match is None:
        return None
    seen = Seen("in_flight")
    _copied(pid, int(fd), int(match[1]), seen, check)
    return seen


def _registered(path: str, info_path: str) -> bool:
    """Whether it is an io_uring that keeps files. Which, the kernel tells as paths only: what their owner likes."""
    if os.readlink(path) != _RING:
        return False
    match = _REGISTERED.search(_info(info_path))
    return match is None or match[1] != b"0"  # a ring that is busy does not say


def _info(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(_INFO_LIMIT)


def _copied(pid: int, fd: int, count: int, seen: Seen, check: Check) -> None:
    """Take a copy of the socket and look at what is on its way to it."""
    process = os.pidfd_open(pid)
    try:
        handle = call("pidfd_getfd", process, fd, 0)
    finally:
        os.close(process)
    _peek(handle, count, seen, 0, check)


def _peek(handle: int, count: int, seen: Seen, depth: int, check: Check) -> None:
    """Look at the descriptors in a socket's queue without taking them. Closes `handle`.

    Sockets among them come last: one may be this very socket, and all that look at it share how far they have read."""
    inner: list[tuple[int, int]] = []
    try:
        with socket.socket(fileno=handle) as copy:
            told = 0
            try:
                copy.setsockopt(socket.SOL_SOCKET, _SO_PEEK_OFF, 0)
                try:
                    for got in _received(copy, count):
                        told += len(got)
                        _judge(got, seen, inner, check)
                finally:
                    copy.setsockopt(socket.SOL_SOCKET, _SO_PEEK_OFF, -1)
            except OSError as error:  # it listens: what is on its way is in connections that were not accepted yet
                if error.errno not in {errno.EINVAL, errno.EAGAIN, errno.EOPNOTSUPP, errno.ENOTCONN}:
                    raise
        seen.hidden = seen.hidden or told < count or bool(inner and depth >= _DEPTH_AT_MOST)
        while inner and depth < _DEPTH_AT_MOST:
            check()
            one, within = inner.pop()
            _peek(one, within, seen, depth + 1, check)
    finally:
        for one, _within in inner:
            os.close(one)


def _received(copy: socket.socket, count: int) -> Iterator[list[int]]:
    """The descriptors of one message after the other. Whoever gets them closes them."""
    flags = socket.MSG_PEEK | socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
    room = socket.CMSG_SPACE(_SCM_MAX * 4)
    told = 0
    for _ in range(_MESSAGES_AT_MOST):
        if told >= count:
            return
        try:
            data, extra, _flags, _address = copy.recvmsg(1 << 16, room, flags)
        except BlockingIOError:
            return
        got: list[int] = []
        for level, kind, payload in extra:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                got.extend(array.array("i", payload[: len(payload) // 4 * 4]))
        told += len(got)
        yield got
        if not data and not extra:
            return


def _judge(got: list[int], seen: Seen, inner: list[tuple[int, int]], check: Check) -> None:
    """What descriptors in flight are. Closes them, but for sockets with others in them: these go to `inner`."""
    statx, kept = Statx(), set()
    try:
        for handle in got:
            check()
            _mode, rdev = statx(handle_folder(), str(handle).encode())
            if rdev:
                seen.devices.add(rdev)
            info = b""
            with suppress(OSError):
                info = _info(f"/proc/self/fdinfo/{handle}")
            match = _IN_FLIGHT.search(info)
            if not info or _REGISTERED.search(info) or (match and len(inner) >= _INNER_AT_MOST):
                seen.hidden = True  # a ring on its way somewhere is rare enough
            elif match:
                inner.append((handle, int(match[1])))
                kept.add(handle)
    finally:
        for handle in set(got) - kept:
            os.close(handle)


def handle_folder() -> int:
    """The directory of our own descriptors."""
    global _folder  # noqa: PLW0603 - opened once
    if _folder < 0:
        _folder = os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    return _folder


_folder = -1
