"""How much of a look is whose: a container has so much time in it and no more."""

from __future__ import annotations

from collections import defaultdict

WHOLE = 1.0  # seconds for all of one container; an honest one takes some milliseconds
SMALL = 0.25  # for one that overran that
NONE = 3  # looks in a row in which none of those has a whole share


class Shares:
    """Of one look after the other. Those that overran take turns at being looked at as well as can be: in a look at
    most one of them has the whole share, in most looks none, and nobody waits for the others for long."""

    def __init__(self) -> None:
        self._heavy: list[str] = []
        self._turn = 0
        self._whole = ""  # which of them has the whole share
        self._overran: set[str] = set()
        self._spent: defaultdict[str, float] = defaultdict(float)

    def begin(self) -> None:
        """A look begins."""
        fitted = {self._whole} - self._overran
        self._heavy = sorted(self._overran.union(self._heavy) - fitted)
        turns = self._heavy + [""] * NONE
        self._turn = (self._turn + 1) % len(turns)
        self._whole = turns[self._turn]
        self._overran.clear()
        self._spent.clear()

    def left(self, group: str) -> float:
        """Seconds that the container has left in this look. The host's own have all the time they need."""
        if not group:
            return float("inf")
        small = group in self._heavy and group != self._whole
        return (SMALL if small else WHOLE) - self._spent[group]

    def spend(self, group: str, seconds: float) -> None:
        """It has been looked at for so long."""
        self._spent[group] += seconds

    def overran(self, group: str) -> None:
        """It has more to be looked at than fits into its share."""
        self._overran.add(group)
