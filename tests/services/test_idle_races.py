"""An owner's "Keep" against giving back at the same moment, on real commits: it is kept or given back, never both."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask

from app.errors import Conflict
from app.extensions import db, transaction
from app.models import Booking, Idling, LedgerEntry, Outcome
from app.services import accounts, quota
from app.services.idle import keeping, steps
from tests.services.conftest import waits
from tests.services.idling import HOUR, MINUTE, NOW, Lab

HELD = 2 * 8 * 3600  # two GPUs for eight hours
USED = 2 * 76 * 60


@pytest.fixture
def booking_id(core: Flask, freeze: Callable[..., None]) -> int:
    """Its owner was told, and it is to be given back now."""
    with core.app_context():
        with transaction():
            lab = Lab(freeze)
            lab.measure(0, 76)
        with transaction():
            lab.look(61)
        freeze(NOW + 76 * MINUTE)
        return lab.booking.id


def at_once(core: Flask, aside: Callable[..., Any], booking_id: int, *deeds: Callable[[int], Any]) -> list[Any]:
    """Start these one after the other while somebody else has the booking: they get it in this order. What they say."""
    said = []
    with core.app_context(), db.engine.begin() as connection:
        connection.execute(sa.text(f"SELECT 1 FROM bookings WHERE id = {booking_id} FOR UPDATE"))
        for number, deed in enumerate(deeds, 1):
            said.append(aside(deed, booking_id))
            waits(core, number)
    return said


def found(core: Flask, booking_id: int) -> tuple[str, bool, int, list[int]]:
    """What became of it: the warning's outcome, whether it was given back, what it holds, what was refunded."""
    with core.app_context():
        booking = db.session.get_one(Booking, booking_id)
        [idling] = db.session.scalars(sa.select(Idling))
        assert (idling.kept_until is not None) == (idling.outcome == Outcome.KEPT)
        refunds = sa.select(LedgerEntry.amount).where(LedgerEntry.kind == "release")
        return (
            str(idling.outcome),
            booking.released_at is not None and booking.ends_at == NOW + 76 * MINUTE,
            quota.held_for(booking_id),
            list(db.session.scalars(refunds)),
        )


def keep(booking_id: int) -> datetime:
    return keeping.keep(accounts.get("liwei"), booking_id)


def test_who_keeps_first_has_it_and_nothing_is_refunded(
    core: Flask, aside: Callable[..., Any], booking_id: int
) -> None:
    said = at_once(core, aside, booking_id, keep, steps.act, keep)
    until = NOW + 76 * MINUTE + HOUR
    assert [one.result(10) for one in said] == [until, None, until]
    assert found(core, booking_id) == ("kept", False, HELD, [])


def test_who_keeps_too_late_is_told_and_it_is_refunded_once(
    core: Flask, aside: Callable[..., Any], booking_id: int
) -> None:
    said = at_once(core, aside, booking_id, steps.act, keep, steps.act)
    assert said[0].result(10).id == booking_id
    with pytest.raises(Conflict, match=r"was given back at .*15:16"):
        said[1].result(10)
    assert said[2].result(10) is None
    assert found(core, booking_id) == ("reclaimed", True, USED, [HELD - USED])
