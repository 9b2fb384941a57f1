"""Keeps a process that sends for other people from reaching what only this machine or this network may reach."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

NAT64 = ipaddress.ip_network("64:ff9b::/96")


class Refused(OSError):
    """A connection to where no message may go."""


def is_public(address: str) -> bool:
    """Whether an address is of the Internet at large; also what it stands for, where it is one inside another."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        if found in NAT64:
            found = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        else:
            found = found.ipv4_mapped or found.sixtofour or found
    return found.is_global and not found.is_multicast


def is_link_local(address: str) -> bool:
    """Whether it is the neighbourhood's, where clouds keep their secrets."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return True
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        return found.ipv4_mapped.is_link_local
    return found.is_link_local


def guard(*, private: bool) -> None:
    """From now on this process connects to public addresses only (`private`: to all but link-local ones).

    At the very connection: what a name meant before, or where an answer sends one next, makes no difference.
    """

    def check(place: Any) -> None:
        address = place[0] if isinstance(place, tuple) and place and isinstance(place[0], str) else ""
        if is_link_local(address) if private else not is_public(address):
            raise Refused(f"no message goes to {address or 'a socket of this machine'}")

    class Guarded(socket.socket):
        """A socket that looks where it goes."""

        def connect(self, address: Any) -> None:
            """Connect, unless that is nowhere to go."""
            check(address)
            super().connect(address)

        def connect_ex(self, address: Any) -> int:
            """Likewise."""
            check(address)
            return super().connect_ex(address)

    setattr(socket, "socket", Guarded)  # noqa: B010 - so that libraries take it, too; mypy knows no such assignment
