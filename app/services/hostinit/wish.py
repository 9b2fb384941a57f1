"""What `berth host init` is to make of a workstation."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from app.services.hostinit import storage
from app.services.hostinit.step import Trouble


@dataclass(frozen=True)
class Wish:
    """`berth`: the program's path. `disk` or `loop_gib`: where the storage pool comes to lie, if there is none yet;
    `storage`: what it is to be made of, "" for the best there is; `erase`: though there is something on the disk.
    `opened`, `closed` and `rate`: see firewall.rules."""

    name: str
    berth: str
    disk: str = ""
    loop_gib: int = 0
    storage: str = ""
    erase: bool = False
    pool: str = "berth"
    bridge: str = "berthbr0"
    subnet: str = ""  # the bridge's own address with its mask; "": one that is free
    opened: tuple[str, ...] = ()
    closed: tuple[str, ...] = ()
    rate: int = 0
    first_port: int = 22000
    last_port: int = 22999

    def __post_init__(self) -> None:
        """Refuse what would only fail later, or get into a file as more than it is."""
        rules = {
            "name": r"[a-z0-9][a-z0-9.-]{0,62}", "pool": r"[A-Za-z][A-Za-z0-9-]{0,30}",
            "bridge": r"[a-z][a-z0-9-]{1,14}", "berth": r"/[^\s%\"'\\$]+",
            "storage": f"({'|'.join(storage.WHICH)})?",
            "disk": r"(/dev(/[A-Za-z0-9:_-][A-Za-z0-9:_.-]*)+)?",
        }  # fmt: skip
        for key, rule in rules.items():
            if not re.fullmatch(rule, getattr(self, key)):
                raise Trouble(f"{getattr(self, key)!r} is no {key}", f"It has to be like {rule}")
        if self.disk and self.loop_gib:
            raise Trouble("a disk and a loop file", "Give --disk or --loop, not both.")
        if not 0 <= self.rate <= 100_000:
            raise Trouble(f"{self.rate} Mbit/s is no rate", "Take one from 1 to 100000, or 0 for no limit.")
        for text in (*self.opened, *self.closed):
            _network(text)
        if self.subnet:
            _bridge_address(self.subnet)
        if not 1024 <= self.first_port <= self.last_port <= 65535:
            raise Trouble(f"{self.first_port}-{self.last_port} is no range of ports", "Take one from 1024 to 65535.")


def _network(text: str) -> None:
    try:
        ipaddress.IPv4Network(text)
    except ValueError as error:
        raise Trouble(f"{text!r} is no IPv4 network: {error}", "Write it like 10.20.0.0/16.") from error


def _bridge_address(text: str) -> None:
    try:
        interface = ipaddress.IPv4Interface(text)
        good = 16 <= interface.network.prefixlen <= 29 and interface.ip != interface.network.network_address
    except ValueError:
        good = False
    if not good:
        raise Trouble(f"{text!r} is no address of a bridge with its mask", "Write it like 10.77.0.1/24 (/16 to /29).")
