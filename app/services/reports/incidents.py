"""What went wrong in a span: GPUs that had to be taken by force, and bookings to which nobody came."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from app.models import User
from app.services.reports import absences, evictions, labels
from app.services.reports.absences import Absence
from app.services.reports.evictions import Eviction
from app.services.reports.pieces import Scope
from app.services.reports.spans import Span

SHOWN = 50  # of each on the page, the last ones; files have all of them


@dataclass(frozen=True)
class Incidents:
    """How often each step of an eviction happened, and who did not come how often, most first: no machine of theirs
    took the GPUs, or nobody ever used them. Of both the last SHOWN, the last first."""

    forced: Mapping[str, int]
    no_shows: tuple[tuple[User, int], ...]
    evictions: tuple[Eviction, ...]
    absences: tuple[Absence, ...]

    @property
    def names(self) -> Mapping[int, str]:
        """What all these people are called, by their id."""
        owners = [one.user for one in self.evictions if one.user]
        return labels.people([*(user for user, _number in self.no_shows), *owners])  # the absent are those of no_shows


def of(span: Span, scope: Scope) -> Incidents:
    """All of the lab's, or what befell some of its bookings. What did not happen at all is not looked for again."""
    forced, missed = evictions.counted(span, scope), absences.counted(span, scope)
    return Incidents(
        forced,
        missed,
        tuple(evictions.newest(span, scope, SHOWN) if any(forced.values()) else ()),
        tuple(absences.newest(span, scope, SHOWN) if missed else ()),
    )
