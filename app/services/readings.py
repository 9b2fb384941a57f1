"""Logs that admins have read out: asked for on a page, answered by the host's agent, and gone after some minutes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import delete, select, update
from sqlalchemy.dialects.postgresql import insert

from app import clock
from app.extensions import db
from app.models import Host, Readable, Reading, User
from app.services import audit, visits

KEPT = timedelta(minutes=10)  # what stands in a log may be somebody's own: it is shown, not collected
LONGEST = 64_000  # characters


@dataclass(frozen=True)
class Question:
    """What an agent is to read."""

    id: int
    instance: str
    what: Readable


def ask(actor: User, host: Host, instance: str, what: Readable) -> None:
    """Have it read, anew if it was before."""
    _expire()
    values = {"asked_at": clock.now(), "answered_at": None, "text": "", "error": ""}
    statement = insert(Reading).values(host_id=host.id, instance=instance, what=what, **values)
    db.session.execute(
        statement.on_conflict_do_update(index_elements=["host_id", "instance", "what"], set_=values)
    )  # fmt: skip
    number = visits.machine(host.id, instance)
    audit.record(actor.username, "instance.read", f"instance:{instance}", host=host.name, what=what, machine=number)


def of_instance(host: Host, instance: str) -> list[Reading]:
    """What was asked for lately, the newest first."""
    query = select(Reading).where(
        Reading.host_id == host.id, Reading.instance == instance, Reading.asked_at > clock.now() - KEPT
    )
    return list(db.session.scalars(query.order_by(Reading.asked_at.desc(), Reading.id)))


def waiting(host_id: int) -> list[Question]:
    """What the host's agent is to read, the oldest first; what is too old is dropped."""
    _expire()
    query = (
        select(Reading.id, Reading.instance, Reading.what)
        .where(Reading.host_id == host_id, Reading.answered_at.is_(None))
        .order_by(Reading.asked_at, Reading.id)
    )
    return [Question(number, instance, Readable(what)) for number, instance, what in db.session.execute(query)]


def answer(question: Question, text: str = "", error: str = "") -> None:
    """Write down what was read, or why it could not be."""
    kept = text.replace("\0", "")[-LONGEST:], error.replace("\0", "")[:1000]
    statement = update(Reading).where(Reading.id == question.id)
    db.session.execute(statement.values(answered_at=clock.now(), text=kept[0], error=kept[1]))


def _expire() -> None:
    db.session.execute(delete(Reading).where(Reading.asked_at < clock.now() - KEPT))
