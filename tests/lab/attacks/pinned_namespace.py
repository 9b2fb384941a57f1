"""A mount namespace with a copy of the node and no process in it: a mount of the namespace itself keeps it."""

import os
import signal

from kit import CLONE_NEWNS, MS_BIND, MS_PRIVATE, WORK, attack, checked, copy, libc, mount, private_mounts, reopen

COPY, PIN = "/root/inside", WORK / "namespace"


def hold(node: str) -> None:
    ready, told = os.pipe()
    if not (child := os.fork()):
        private_mounts()
        copy(node, COPY)
        os.write(told, b"x")
        signal.pause()
    os.close(told)
    if not os.read(ready, 1):
        raise SystemExit("no namespace")
    mount(str(WORK), str(WORK), flags=MS_BIND)
    mount("none", str(WORK), flags=MS_PRIVATE)
    copy(f"/proc/{child}/ns/mnt", str(PIN))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def probe(_node: str) -> dict[str, str]:
    answer, told = os.pipe()
    if not (child := os.fork()):
        fd = os.open(PIN, os.O_RDONLY)
        checked(libc.setns(fd, CLONE_NEWNS))
        os.write(told, reopen(COPY).encode())
        os._exit(0)
    os.close(told)
    os.waitpid(child, 0)
    return {"open the copy in it": os.read(answer, 99).decode() or "no answer"}


attack(hold, probe)
