"""What can be refused, in words for the person who asked. Knows no HTTP and no CLI.

Each error says what happened (`brief`) and what to do about it (`hint`); both are already in the
reader's language when raised. `code` is for programs and does not change.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime


class DomainError(Exception):
    """Something that Berth refuses or cannot do now."""

    code = "refused"

    def __init__(self, brief: str, hint: str = "", **details: object) -> None:
        super().__init__(brief)
        self.brief = str(brief)
        self.hint = str(hint)
        self.details = details

    def __str__(self) -> str:
        return f"{self.brief} {self.hint}".strip()

    @property
    def over_at(self) -> datetime | None:
        """From when on what refuses is not in the way any more, where time alone helps."""
        moment = self.details.get("resets") or self.details.get("earliest")
        return datetime.fromisoformat(str(moment)) if moment else None


class InvalidInput(DomainError):
    """A value that cannot be meant: `field` names the form field it came from."""

    code = "invalid"

    def __init__(self, brief: str, hint: str = "", *, field: str = "") -> None:
        super().__init__(brief, hint, field=field)
        self.field = field


class RuleRefused(DomainError):
    """Against a rule of the lab: too long, too far ahead, in maintenance."""

    code = "rule"


class QuotaExceeded(RuleRefused):
    """Costs more than the account may still hold. Details: `needed`, `free` in GPU-seconds."""

    code = "quota"


class NotAllowed(DomainError):
    """Not this person's to do."""

    code = "forbidden"


class NotFound(DomainError):
    """No such thing, or none that this person may know of."""

    code = "not_found"


class Conflict(DomainError):
    """Someone or something else was first."""

    code = "conflict"


class Cancelled(DomainError):
    """Somebody has put an end to what was under way."""

    code = "cancelled"


@dataclass(frozen=True)
class Clash:
    """One GPU of a refused booking that somebody else holds in that window."""

    gpu: str
    host: str
    owner: str
    starts_at: datetime
    ends_at: datetime


@dataclass(frozen=True)
class Alternative:
    """A window that was free when it was offered: `gpu_ids` on `host`, from `starts_at` to `ends_at`."""

    host: str
    gpu_ids: tuple[int, ...]
    starts_at: datetime
    ends_at: datetime
    kind: str = field(default="later")  # later | shorter | elsewhere


class SlotTaken(Conflict):
    """The GPUs are booked by somebody else in that window."""

    code = "taken"

    def __init__(
        self,
        brief: str,
        hint: str = "",
        *,
        clashes: tuple[Clash, ...] = (),
        alternatives: tuple[Alternative, ...] = (),
        next_free: datetime | None = None,
    ) -> None:
        super().__init__(brief, hint)
        self.clashes = clashes
        self.alternatives = alternatives
        self.next_free = next_free


class Unavailable(DomainError):
    """A part of Berth is away: LXD, Valkey, PostgreSQL, an agent. Try again."""

    code = "unavailable"


def first_over(refused: Iterable[DomainError], since: datetime) -> datetime | None:
    """When the first of what was in the way from `since` on is not any more, by time alone; None if that never is."""
    moments = (error.over_at for error in refused)
    return min((moment for moment in moments if moment is not None and moment > since), default=None)
