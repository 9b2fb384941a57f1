"""A simulated host's file systems: every directory is there and fit to be shared, but under /missing and /unfit."""

from __future__ import annotations

from collections.abc import Sequence

from app.drivers.shares import BAD, Found, Wish


class FakeDirectories:
    """Nothing is looked at."""

    def look(self, wishes: Sequence[Wish]) -> list[tuple[Found, ...]]:
        """What is to be said of each."""
        return [_look(wish) for wish in wishes]


def _look(wish: Wish) -> tuple[Found, ...]:
    if wish.source.startswith("/missing"):
        return (Found(BAD, "missing", "/missing"),)
    if wish.source.startswith("/unfit") and not wish.read_only:
        return (Found(BAD, "flags", "/unfit: nosuid, nodev"),)
    return ()
