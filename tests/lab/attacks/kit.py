"""What the attacks are made of. They run inside the container as root, with the standard library only.

`python3 NAME.py hold NODE` prepares one while the GPU is booked and says `ready`; `python3 NAME.py probe NODE` tries,
afterwards, all that was prepared and prints one line of JSON, by try: `read`, `open` (opened but not read), the name of
an errno, or `gone` where the process that held something has ended. Each process that holds something answers on a
socket of its own, so that what it can still do is asked of itself.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import socket
import stat
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

Tries = dict[str, Callable[[], str]]
WORK = Path("/run/attack") / Path(sys.argv[0]).stem
PATIENCE = 6.0  # seconds for a holder's answer
HERE = 5.0  # seconds for a node to come: on the host it is seen a moment before LXD has mounted it in here

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.syscall.restype = ctypes.c_long

MS_BIND, MS_MOVE, MS_REC, MS_PRIVATE = 1 << 12, 1 << 13, 1 << 14, 1 << 18
MNT_DETACH = 2
CLONE_FILES, CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID = 0x400, 0x20000, 0x10000000, 0x20000000


def checked(result: int) -> int:
    """What a function of libc returned, its error raised."""
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    checked(libc.mount(source.encode(), target.encode(), kind.encode() or None, flags, data.encode() or None))


def unmount(target: str) -> None:
    checked(libc.umount2(target.encode(), MNT_DETACH))


def unshare(flags: int) -> None:
    checked(libc.unshare(flags))


def private_mounts() -> None:
    """A mount namespace of one's own, into which nothing comes from outside."""
    unshare(CLONE_NEWNS)
    mount("none", "/", flags=MS_REC | MS_PRIVATE)


def copy(node: str, path: str) -> None:
    """Mount the node in another place."""
    Path(path).touch()
    mount(node, path, flags=MS_BIND)


def reopen(path: str) -> str:
    """What comes of opening and reading it."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    try:
        found = held(fd)
        return found if found in {"read", "no device"} else "open"
    finally:
        os.close(fd)


def is_device(fd: int) -> bool:
    """Not, say, the empty file on which a node was mounted."""
    return stat.S_ISCHR(os.fstat(fd).st_mode)


def held(fd: int) -> str:
    """What comes of reading an open descriptor."""
    if not is_device(fd):
        return "no device"
    try:
        return "read" if os.read(fd, 1) else "empty"
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def keeping(fd: int) -> Tries:
    """All that can be done with a descriptor."""
    return {"read it": lambda: held(fd), "open it again": lambda: reopen(f"/proc/thread-self/fd/{fd}")}


def serve(listener: socket.socket, tries: Tries) -> None:
    """Answer everybody who asks with what comes of the tries, for ever."""
    while True:
        answer(listener.accept()[0], tries)


def answer(connection: socket.socket, tries: Tries) -> None:
    found = {"alive": str(os.getpid())}
    for name, attempt in tries.items():
        try:
            found[name] = attempt()
        except Exception as error:  # noqa: BLE001 - whatever comes of it is the answer
            found[name] = repr(error)
    connection.sendall(json.dumps(found).encode())
    connection.close()


def holder(
    name: str,
    prepare: Callable[[], Tries],
    around: Callable[[Callable[[], None]], None] = lambda body: body(),
    serving: Callable[[socket.socket, Tries], None] = serve,
) -> int:
    """Leave a process that has prepared something and answers; its id. `around`: what runs it all in there."""
    ready, told = os.pipe()
    if pid := os.fork():
        said = os.read(ready, 1 << 16).decode()
        if said != "ready":
            raise SystemExit(f"{name}: {said}")
        return pid
    os.setsid()
    for fd in (0, 1, 2):
        os.dup2(os.open("/dev/null", os.O_RDWR), fd)

    def body() -> None:
        tries = prepare()
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(WORK / name))
        listener.listen(8)
        os.write(told, b"ready")
        serving(listener, tries)

    try:
        around(body)
    except BaseException:  # noqa: BLE001 - told, and then it is over
        os.write(told, traceback.format_exc().encode())
    os._exit(1)


def ask(name: str) -> dict[str, str]:
    """What a holder can do now."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(PATIENCE)
        try:
            asking.connect(str(WORK / name))
            text = b"".join(iter(lambda: asking.recv(4096), b""))
        except TimeoutError:
            return {name: "silent"}
        except OSError:
            return {name: "gone"}
    return {f"{name}: {key}": value for key, value in json.loads(text or b'{"answer": "none"}').items()}


def attack(hold: Callable[[str], object], probe: Callable[[str], dict[str, str]] = lambda _node: {}) -> None:
    """The program. `probe` comes before the holders are asked."""
    mode, node = sys.argv[1:3]
    if mode == "hold":
        WORK.mkdir(parents=True)
        here = time.monotonic() + HERE
        while not Path(node).exists() and time.monotonic() < here:
            time.sleep(0.02)
        hold(node)
        print("ready", flush=True)
        return
    found = probe(node)
    for path in sorted(WORK.iterdir()) if WORK.is_dir() else []:
        if path.is_socket():
            found |= ask(path.name)
    print(json.dumps({"the node": reopen(node)} | found), flush=True)
