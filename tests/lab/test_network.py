"""The network between machines: none reaches another, none is another, and of the host only what they need."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.drivers.base import InstanceSpec
from tests.lab.lab import Lab
from tests.lab.looking import connect
from tests.runtime.running import wait_for

pytestmark = pytest.mark.lab

# Tries to connect to each ADDRESS:PORT from the address SOURCE; prints how each went.
KNOCK = """
import json, socket, sys
answers = {}
for place in sys.argv[2:]:
    host, port = place.rsplit(":", 1)
    knock = socket.socket()
    knock.settimeout(1.5)
    try:
        knock.bind((sys.argv[1], 0))
        knock.connect((host, int(port)))
        answers[place] = "open"
    except TimeoutError:
        answers[place] = "silence"
    except OSError as error:
        answers[place] = error.strerror
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def host(lab_directory: Path) -> Iterator[Lab]:
    with Lab(lab_directory / "bridged", gpus=1, bridge=True) as lab:
        yield lab


@pytest.fixture(scope="module")
def two(host: Lab) -> list[tuple[str, str]]:
    """Two machines that Berth made, and their addresses."""
    names = [host.unique(), host.unique()]
    for name in names:
        spec = InstanceSpec(name, "base", cpus=1, memory_mib=256, disk_gib=2, owner="alice")
        connect(host).create(spec, lambda _step, _percent: None)
    found = [(name, host.lxc("config", "device", "get", name, "eth0", "ipv4.address").strip()) for name in names]
    for name, address in found:
        wait_for(lambda name=name, address=address: address in host.run(name, "hostname", "-I"), 15, f"{name} is there")
    return found


def knock(host: Lab, name: str, *places: str, source: str = "") -> dict[str, str]:
    return json.loads(host.run(name, "python3", "-c", KNOCK, source, *places, timeout=30))
