"""A descriptor that the container's first process keeps for a service: systemd's store of descriptors."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from kit import PATIENCE, WORK, attack, held

UNIT = """
[Service]
NotifyAccess=all
FileDescriptorStoreMax=4
ExecStart=/usr/bin/python3 {script} serve {node}
"""
ANSWER = WORK / "answer"


def service(node: str) -> None:
    if os.environ.get("LISTEN_FDS"):
        ANSWER.with_suffix(".new").write_text(held(3))
        ANSWER.with_suffix(".new").rename(ANSWER)
        return
    fd = os.open(node, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.connect(os.environ["NOTIFY_SOCKET"])
        socket.send_fds(systemd, [b"FDSTORE=1"], [fd])
    os.close(fd)
    signal.pause()


def systemctl(*arguments: str) -> str:
    return subprocess.run(["systemctl", *arguments], check=True, capture_output=True, text=True).stdout


def until(so: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not so() and time.monotonic() < end:
        time.sleep(0.02)


def hold(node: str) -> None:
    Path("/etc/systemd/system/keeper.service").write_text(UNIT.format(script=Path(sys.argv[0]).absolute(), node=node))
    systemctl("daemon-reload")
    systemctl("start", "keeper")
    until(lambda: "=1" in systemctl("show", "--property=NFileDescriptorStore", "keeper"))


def probe(_node: str) -> dict[str, str]:
    systemctl("restart", "keeper")
    until(ANSWER.exists)
    return {"get it back from systemd": ANSWER.read_text() if ANSWER.exists() else "gone"}


if sys.argv[1] == "serve":
    service(sys.argv[2])
else:
    attack(hold, probe)
