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
    took the GPUs, or nobody ever used them. Of both the last SHOWN, the last first. `names`: what all these people are
    called, by id."""

    forced: Mapping[str, int]
    no_shows: tuple[tuple[User, int], ...]
    evictions: tuple[Eviction, ...]
    absences: tuple[Absence, ...]
    names: Mapping[int, str]


def of(span: Span, scope: Scope) -> Incidents:
    """All of the lab's, or what befell some of its bookings. What did not happen at all is not looked for again."""
    forced, missed = evictions.counted(span, scope), absences.counted(span, scope)
    evicted = tuple(evictions.newest(span, scope, SHOWN) if any(forced.values()) else ())
    absent = tuple(absences.newest(span, scope, SHOWN) if missed else ())
    people = {user.id for user, _number in missed} | {one.user.id for one in evicted if one.user}
    return Incidents(forced, missed, evicted, absent, labels.people(people) if people else {})
