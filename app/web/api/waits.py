"""/api/v1/waits: places on the waiting list: taken, read, given up, and offers taken."""

from __future__ import annotations

from flask import url_for

from app.extensions import transaction
from app.models import Wait, WaitState
from app.services import openings
from app.services.waits import joining, line, offers
from app.services.waits.joining import Wanted
from app.web.api.answers import WaitOut
from app.web.api.auth import bearer
from app.web.api.blueprint import bp, slot
from app.web.api.schemas import BIGGEST_ID, IdempotencyHeaders, NewWait, Nothing
from app.web.api.spec import describe

ID = f"<int(min=1, max={BIGGEST_ID}):wait_id>"


@bp.get("/waits")
@describe(tag="waits", answer=list[WaitOut])
def list_waits() -> list[WaitOut]:
    """One's own places: those that are open, first come first, then the latest that are over."""
    return _shown(line.mine(bearer().user))


@bp.post("/waits")
@describe(tag="waits", scope="book", status=201, answer=WaitOut, errors=(400, 404, 409, 413, 415))
def create_wait(json: NewWait, headers: IdempotencyHeaders) -> tuple[WaitOut, int, dict[str, str]]:
    """Stand at the end of the waiting list; what is free already is given a moment after the answer.

    Without `hours` it waits for exactly the window, else for any so long within it. With `Idempotency-Key`, sending the
    same request again waits once.
    """
    ask = json.ask(headers.key)
    seconds = None if json.hours is None else round(json.hours * 3600)
    with transaction():
        wait = joining.join(bearer().user, Wanted(ask, seconds, by_itself=not json.ask_first), slot())
    return _one(wait.id), 201, {"Location": url_for("api.show_wait", wait_id=wait.id)}


@bp.get(f"/waits/{ID}")
@describe(tag="waits", answer=WaitOut, errors=(404,))
def show_wait(wait_id: int) -> WaitOut:
    """One place of one's own or, for an admin, anybody's."""
    return _one(wait_id)


@bp.delete(f"/waits/{ID}")
@describe(tag="waits", scope="book", answer=WaitOut, errors=(404, 409))
def delete_wait(wait_id: int) -> WaitOut:
    """Leave the waiting list, or decline an offer."""
    with transaction():
        joining.leave(bearer().user, wait_id)
    return _one(wait_id)


@bp.post(f"/waits/{ID}/accept")
@describe(tag="waits", scope="book", answer=WaitOut, errors=(400, 404, 409, 413, 415))
def accept_wait(wait_id: int, json: Nothing) -> WaitOut:  # noqa: ARG001 - declared so that fields are refused
    """Take an offer; from then on it is a booking like any other."""
    with transaction():
        offers.accept(bearer().user, wait_id)
    return _one(wait_id)


def _one(wait_id: int) -> WaitOut:
    return _shown([line.get(bearer().user, wait_id)])[0]


def _shown(waits: list[Wait]) -> list[WaitOut]:
    waiting = any(wait.state == WaitState.WAITING for wait in waits)
    everyone, gpus = (line.everybody(), openings.usable_gpus()) if waiting else ([], [])
    return [
        WaitOut(
            id=wait.id,
            state=wait.state,
            place=line.place(wait, everyone, gpus) if wait.state == WaitState.WAITING else None,
            gpus=wait.gpu_ids,
            count=wait.count,
            model=wait.model,
            host=wait.host,
            hours=round(wait.seconds / 3600, 4),
            starts_at=wait.starts_at,
            ends_at=wait.ends_at,
            ask_first=not wait.by_itself,
            note=wait.note,
            account=wait.account,
            booking=wait.booking_id,
            decide_by=wait.decide_by,
            created_at=wait.created_at,
            granted_at=wait.granted_at,
            closed_at=wait.closed_at,
        )
        for wait in waits
    ]
