"""A shell with a terminal of its own inside an instance."""

from __future__ import annotations

from typing import Protocol

LARGEST = 1 << 16  # bytes of one piece, in either direction


class Pty(Protocol):
    """A root shell in a running instance. What it says is the instance's own, to be shown and believed in nothing.

    Read by one thread, written to by another; `close` may come from a third and ends what both wait for."""

    def read(self) -> bytes:
        """The next piece, at most LARGEST bytes; b"" at its end. Nothing is read ahead without bound."""

    def write(self, data: bytes) -> None:
        """Type this. Waits while the shell takes nothing."""

    def resize(self, columns: int, rows: int) -> None:
        """The window has this size now."""

    def close(self) -> None:
        """End it, and what runs in it."""


class TerminalDriver(Protocol):
    """The part of an LxdDriver that opens terminals."""

    def terminal(self, instance: str, columns: int, rows: int) -> Pty:
        """Open one. Raises GiveUp where there is no such instance, TryAgain where it does not run."""
