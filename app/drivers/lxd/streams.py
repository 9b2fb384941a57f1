"""The connections over which LXD's exec hands out a command's streams, and when there can be any."""

from __future__ import annotations

import logging
from typing import Any

from websockets.sync.client import ClientConnection, unix_connect

from app.drivers.base import GiveUp, TryAgain
from app.drivers.lxd.shapes import Json
from app.drivers.lxd.wire import Wire

# LXD ends its connections without a goodbye; what that means for us is decided here and need not be logged there too.
logging.getLogger("websockets").setLevel(logging.CRITICAL)


def require_running(wire: Wire, name: str, what: str) -> None:
    """Raise GiveUp or TryAgain where nothing can be run in the instance from here."""
    current = wire.find(name)[0]
    if current is None:
        raise GiveUp(what, "the host has no such instance", "Create the instance anew.")
    if (status := current["status"].lower()) != "running":
        raise TryAgain(what, f"the instance is {status}", "Start the instance.")
    if not wire.socket:
        raise GiveUp(what, "the host is on another machine", "Run its agent beside it.")


def in_order(begun: Json) -> list[str]:
    """The streams as they are to be connected, control first: LXD begins as soon as it has the others, and a command
    that is short may end, and its operation with it, before a busy host has connected one more."""
    return sorted(begun["metadata"]["fds"], key=lambda stream: (stream != "control", stream))


def connect(wire: Wire, begun: Json, stream: str, **limits: Any) -> ClientConnection:
    """One stream of an exec that `wire.begin` has begun: 0, 1, 2 or control."""
    uri = f"ws://lxd/1.0/operations/{begun['id']}/websocket?secret={begun['metadata']['fds'][stream]}"
    return unix_connect(
        wire.socket, uri, open_timeout=5, close_timeout=0.2, compression=None, ping_interval=None, **limits
    )
