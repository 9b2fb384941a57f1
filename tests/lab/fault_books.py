"""What a fault run left in the books: the ledger, the log of what was seen, and the reasons for quarantine."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from datetime import datetime

from app.extensions import db
from app.models import Account, Allocation, AuditEvent, Booking, EntryKind, Gpu, LedgerEntry
from app.services.windows import Window
from tests.lab.fault_end import asked
from tests.lab.fault_judge import Facts
from tests.lab.scene import Scene

_BLAMED = re.compile(r"\bprocess (?:\d+ in|of) (?P<machine>[ct]-\d+-\d+)")
OF_OWNERS = {"no_machine", "stopped", "frozen"}  # what keeps a GPU away that its owner can mend
PROMPT = 60.0  # seconds that a GPU may be late
NEAR = 10.0  # seconds before a GPU is held back, in which the one who is blamed must have been seen to have it


def books(scene: Scene) -> list[str]:
    """What is wrong with the ledger and the log."""

    def read() -> list[str]:
        entries = db.session.scalars(db.select(LedgerEntry)).all()
        sums: Counter[int] = Counter()
        for entry in entries:
            sums[entry.account_id] += entry.amount
        wrong = [
            f"{account.name} has {account.balance}, its entries add up to {sums[account.id]}"
            for account in db.session.scalars(db.select(Account))
            if account.balance != sums[account.id]
        ]
        bookings = db.session.scalars(db.select(Booking)).all()
        return wrong + [text for booking in bookings for text in _of_a_booking(booking, entries)] + _lines()

    return asked(scene, read)


def _of_a_booking(booking: Booking, entries: Sequence[LedgerEntry]) -> list[str]:
    """Nothing is held any more, and it was charged once with what it used, or never if it was cancelled. What its owner
    did not have of a GPU, since something was broken or away, is not paid for."""
    mine = [entry for entry in entries if entry.booking_id == booking.id]
    held = sum(entry.amount for entry in mine if entry.kind in {EntryKind.HOLD, EntryKind.RELEASE})
    settled = [-entry.amount for entry in mine if entry.kind == EntryKind.SETTLE]
    gpus = db.session.scalars(db.select(Allocation).where(Allocation.booking_id == booking.id)).all()
    used = sum(Window(_since(one, booking), booking.ends_at).seconds for one in gpus)
    due = [] if booking.cancelled_at else [used]
    return [f"booking {booking.id} holds {-held} and was charged {settled}, not {due}"] * ((held, settled) != (0, due))


def _since(one: Allocation, booking: Booking) -> datetime:
    """From when on a GPU is paid for: a minute is what giving it may take."""
    if one.attached_at is None and one.trouble not in {"", *OF_OWNERS}:
        return booking.ends_at
    had = [moment for moment in (one.attached_at, one.ready_at) if moment is not None]
    since = min([*had, booking.ends_at]).replace(microsecond=0)
    return since if (since - one.starts_at).total_seconds() > PROMPT else one.starts_at


def _lines() -> list[str]:
    """Whether each GPU's coming and going is told once, by the allocations it was seen for."""
    wrong = []
    for word in ("attached", "detached"):
        events = db.session.scalars(db.select(AuditEvent).where(AuditEvent.action == f"gpu.{word}")).all()
        of_gpus = Counter((event.target, event.details.get("gpu")) for event in events)
        wrong += [f"{word}: {target}, GPU {gpu} is told {n} times" for (target, gpu), n in of_gpus.items() if n > 1]
        keys = Counter(event.key for event in events)
        for one in db.session.scalars(db.select(Allocation)):
            moment = one.attached_at if word == "attached" else one.detached_at
            if keys[f"{word}:{one.id}"] != (moment is not None):
                wrong.append(f"allocation {one.id}: {word} at {moment}, told {keys[f'{word}:{one.id}']} times")
    return wrong


def untrue(scene: Scene, facts: Facts) -> list[str]:
    """GPUs that were held back for a machine that was not seen to have them then."""

    def read() -> list[str]:
        minors = {f"gpu:{gpu.id}": gpu.minor for gpu in db.session.scalars(db.select(Gpu))}
        wrong = []
        for event in db.session.scalars(db.select(AuditEvent).where(AuditEvent.action == "gpu.quarantined")):
            reason, at, minor = str(event.details["reason"]), event.created_at.timestamp(), minors[event.target]
            blamed = _BLAMED.search(reason)
            seen = any(
                span.machine == blamed["machine"] and span.minor == minor and span.begin <= at and span.end >= at - NEAR
                for span in (facts.spans if blamed else ())
            )
            if blamed and not seen:
                wrong.append(f"GPU {minor} was held back at {at - facts.zero:.2f}, and it is not true: {reason}")
        return wrong

    return asked(scene, read)


def told(scene: Scene, actions: Sequence[str]) -> dict[str, float]:
    """How often the log tells of each."""

    def read() -> dict[str, float]:
        rows = db.session.execute(db.select(AuditEvent.action, db.func.count()).group_by(AuditEvent.action))
        counts = {action: number for action, number in rows}  # noqa: C416 - rows are not pairs
        return {action: counts.get(action, 0) for action in actions}

    found: dict[str, float] = scene.ask(read) or {}
    return found
