"""The lab's zone: the portal's own, which it writes down when it starts.

Agents and commands run on other machines too, whose zone may be another. They take what is written: a day of usage, or
a month of somebody's, begins when the lab's does, whichever machine counts it.
"""

from __future__ import annotations

import time
from zoneinfo import ZoneInfo

from sqlalchemy import select

from app.extensions import db
from app.models import Policy
from app.services import audit, policy
from app.services.reports import counted

FRESH = 60.0  # seconds for which what was read is taken to be so still


class Written:
    """The lab's zone for a process that is not the portal: as it is written, `own` as long as none is."""

    def __init__(self, own: ZoneInfo) -> None:
        self._own = self._found = own
        self._until = float("-inf")

    def __call__(self) -> ZoneInfo:
        """Needs an app context. Raises SQLAlchemyError."""
        if time.monotonic() >= self._until:
            name = written()
            if name is None:
                return self._own
            self._found, self._until = ZoneInfo(name), time.monotonic() + FRESH
        return self._found


def written() -> str | None:
    """The name of the zone that the portal wrote down; None before the first has."""
    return db.session.scalar(select(Policy.zone))


def write(name: str) -> None:
    """Write down the portal's own. Days that are folded already stay as they are; bookings are cut anew."""
    rules = policy.current()
    if rules.zone == name:
        return
    db.session.refresh(rules, with_for_update=True)  # the portal's processes start side by side
    if rules.zone == name:
        return
    before, rules.zone = rules.zone, name
    db.session.flush()
    counted.forget_all()
    audit.record(audit.SYSTEM, "policy.zone", "policy", zone=name, before=before)
