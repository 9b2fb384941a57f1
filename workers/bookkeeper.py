"""Closes the books of bookings that are over where no agent has: their hours go back also if their host is never seen
again."""

from __future__ import annotations

import logging
from datetime import timedelta

from sqlalchemy.exc import DBAPIError

from app.extensions import db, transaction
from app.services import inventory, recording

log = logging.getLogger(__name__)

LEFT_TO_AGENTS = timedelta(minutes=10)  # a pass under way at the end may yet write down what it saw; none takes as long


def tend() -> int:
    """Close them; how many. Each host's in a transaction of its own: one that fails keeps no other one back, and is
    tried again with the next look."""
    with transaction():
        found = recording.unsettled(LEFT_TO_AGENTS)
    closed = 0
    for host_id in found:
        try:
            with transaction():
                closed += recording.settle_ended(inventory.host_of(host_id), ago=LEFT_TO_AGENTS)
        except DBAPIError as error:
            log.warning("the books of host %d stay open for now: %s", host_id, error)
            db.session.remove()
    return closed
