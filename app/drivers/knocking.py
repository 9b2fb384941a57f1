"""Whether a port of this machine is free, and who answers behind one that is open."""

from __future__ import annotations

import errno
import ipaddress
import socket

from app.drivers.base import TryAgain
from app.drivers.doors import BUSY, CLOSED, NO_ADDRESS, OTHER, REFUSED, SILENT, Door

PATIENCE = 2.5  # seconds for whoever answers behind a door
# What a client of Remote Desktop says first (MS-RDPBCGR 2.2.1.1): it asks for TLS or CredSSP, and names no user.
_RDP_HELLO = bytes.fromhex("030000130ee000000000000100080003000000")


class PortTaken(TryAgain):
    """The port cannot be opened now: `reason` is BUSY or NO_ADDRESS."""

    def __init__(self, door: Door, reason: str) -> None:
        told = "somebody else has it" if reason == BUSY else f"the host has no address {door.listen}"
        super().__init__(f"Open port {door.number}", told, "It is opened when that changes.")
        self.reason = reason


def taken_here(door: Door) -> str:
    """Why this machine's port cannot be opened now, or "": found out by opening it for a moment."""
    try:
        with socket.socket(_family(door.listen)) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as LXD does: old connections are no matter
            tried.bind((door.listen, door.number))
            tried.listen(1)
    except OSError as error:
        return NO_ADDRESS if error.errno == errno.EADDRNOTAVAIL else BUSY
    return ""


def knock_here(door: Door) -> str:
    """Say hello at a port of this machine, and see who answers. What comes is the container's own and is not kept."""
    try:
        with socket.socket(_family(door.listen)) as line:
            line.settimeout(PATIENCE)
            line.connect((_reached_at(door.listen), door.number))
            if door.purpose == "rdp":
                line.sendall(_RDP_HELLO)
            heard = line.recv(64)
    except TimeoutError:
        return SILENT
    except ConnectionRefusedError:
        return REFUSED
    except OSError:
        return CLOSED
    if not heard:
        return CLOSED
    return "" if _is_right(door.purpose, heard) else OTHER


def _is_right(purpose: str, heard: bytes) -> bool:
    """SSH's banner, or RDP's confirmation of a connection (TPKT version 3, TPDU code 0xD0)."""
    if purpose == "ssh":
        return heard.startswith(b"SSH-")
    return heard[:2] == b"\x03\x00" and len(heard) >= 11 and heard[5] == 0xD0


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _reached_at(listen: str) -> str:
    """Where this machine itself finds what listens there."""
    address = ipaddress.ip_address(listen)
    if not address.is_unspecified:
        return listen
    return "::1" if address.version == 6 else "127.0.0.1"
