"""A mount namespace with a copy of the node and no process in it: a mount of the namespace itself keeps it."""

import os
import signal
from contextlib import suppress

from kit import CLONE_NEWNS, MS_BIND, MS_PRIVATE, WORK, attack, checked, copy, libc, mount, private_mounts, reopen

COPY, PIN = "/root/inside", WORK / "namespace"
TRIES = 8


def hold(node: str) -> None:
    mount(str(WORK), str(WORK), flags=MS_BIND)
    mount("none", str(WORK), flags=MS_PRIVATE)
    # The kernel wants the namespace to have a higher number than the one it is mounted in, and each CPU counts for
    # itself (Linux 6.18), so that it may have to be made on another.
    for cpu in sorted(os.sched_getaffinity(0)) * TRIES:
        with suppress(OSError):
            pin(node, cpu)
            return
    raise SystemExit("no namespace can be mounted")


def pin(node: str, cpu: int) -> None:
    """Have a child make a namespace on that CPU, mount it, and end the child."""
    ready, told = os.pipe()
    if not (child := os.fork()):
        try:
            os.sched_setaffinity(0, {cpu})
            private_mounts()
            copy(node, COPY)
            os.write(told, b"x")
            signal.pause()
        finally:
            os._exit(1)
    os.close(told)
    try:
        os.read(ready, 1)
        copy(f"/proc/{child}/ns/mnt", str(PIN))
    finally:
        os.close(ready)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def probe(_node: str) -> dict[str, str]:
    answer, told = os.pipe()
    if not (child := os.fork()):
        try:
            checked(libc.setns(os.open(PIN, os.O_RDONLY), CLONE_NEWNS))
            os.write(told, reopen(COPY).encode())
        finally:
            os._exit(0)
    os.close(told)
    os.waitpid(child, 0)
    return {"open the copy in it": os.read(answer, 99).decode() or "no answer"}


attack(hold, probe)
