"""LXD's events: a hint that something about an instance has changed, and never more than that."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from pylxd.client import EventType, _WebsocketClient

from app.drivers.base import HostUnreachable
from app.drivers.lxd.errors import as_driver_errors

_LARGEST = 1 << 20  # characters of an event; a larger one is a hint all the same


def listen(client: Any, heard: Callable[[str], None]) -> None:
    """Call `heard` with the action of each lifecycle event (`instance-started`, …) until the connection ends.

    Calls it with "" once it listens: whatever happened before has to be looked for. Raises HostUnreachable."""

    class Ear(_WebsocketClient):  # type: ignore[misc]
        """Hands on what arrives."""

        def handshake_ok(self) -> None:
            """It listens."""
            heard("")

        def received_message(self, message: Any) -> None:
            """An event."""
            heard(_action(message.data))

    with as_driver_errors("Listen to LXD's events", HostUnreachable):
        ear = client.events(websocket_client=Ear, event_types={EventType.Lifecycle})
        try:
            ear.connect()
            while not ear.terminated and ear.once():
                pass
        finally:
            ear.terminate()


def _action(data: bytes) -> str:
    """What happened, as LXD calls it; "unknown" for what cannot be read."""
    try:
        return str(json.loads(data[:_LARGEST])["metadata"]["action"])
    except (ValueError, KeyError, TypeError):
        return "unknown"
