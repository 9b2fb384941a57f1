"""What systemd is told of the agent that it started (see sd_notify(3)); nothing where somebody else started it.

It restarts an agent of which it hears nothing for WatchdogSec: one that hangs as a whole cannot end itself.
"""

from __future__ import annotations

import logging
import os
import socket

log = logging.getLogger(__name__)

READY, STOPPING, ALIVE = "READY=1", "STOPPING=1", "WATCHDOG=1"
PATIENCE = 180.0  # seconds of silence for which the unit has it wait (WatchdogSec)
SPARE = 30.0


def tell(*words: str) -> None:
    """Send them. That it cannot be told is no reason to do anything else."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    name = "\0" + address[1:] if address.startswith("@") else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as wire:
            wire.settimeout(1)
            wire.connect(name)
            wire.send("\n".join(words).encode())
    except OSError as error:
        log.warning("systemd cannot be told %s: %s", " ".join(words), error)


class Pulse:
    """Tells systemd that the agent is up once a pass has ended, and that it is alive whenever another one has."""

    def __init__(self, longest: float) -> None:
        """`longest`: seconds that may lie between the ends of two passes; where they are more than the unit has,
        systemd is asked for more."""
        self._ended = self._told = 0
        patience = longest + SPARE
        self._more = [f"WATCHDOG_USEC={patience * 1e6:.0f}"] if patience > PATIENCE else []

    def beat(self) -> None:
        """A pass has ended, whatever it found. From the thread that makes them."""
        self._ended += 1

    def pass_on(self) -> None:
        """Say so, if any has since the last time. From the main thread, so that both have to be at work."""
        ended = self._ended
        if ended != self._told:
            tell(ALIVE, *([] if self._told else [READY, *self._more]))
            self._told = ended
