"""The GPUs as they are now: all of them, and those of one's machine or booking. Each part renews itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

from flask import Blueprint, Response, request, url_for

from app import clock
from app.language import gettext as _
from app.models import Allocation, Booking, Instance, Phase
from app.services import attachments, bookings, instances, live
from app.web import live_words
from app.web.bookings import words
from app.web.bookings.blueprint import ID
from app.web.machine_words import silence
from app.web.numbers import whole
from app.web.render import is_fragment, render
from app.web.sessions import me

bp = Blueprint("live", __name__, url_prefix="/live")

POLL = 15  # seconds between two questions whether anything has changed
STALE = 60  # seconds: then the part is made anew though nothing was measured, for the time has gone on


@bp.get("")
def index() -> Response:
    """All hosts, `?open=` those GPU by GPU; `order`: of the GPUs as they stood on the page that asks again."""
    if is_fragment() and _nothing_new():
        return Response(status=204)
    opened = list(dict.fromkeys(name for name in request.args.getlist("open")[:64] if len(name) <= 63))
    shown = live.show(me(), opened, _order())
    order = ",".join(str(one.gpu.id) for host in shown.hosts if host.open for one in host.gpus)
    return render(
        "live/index.html",
        fragment="live/_live.html",
        shown=shown,
        rows=lambda found: live_words.rows(found, me()),
        words=live_words,
        silence=silence,
        counts=live_words.counter(),
        toggled=lambda name: f"{_address(_toggled(opened, name))}#host-{name}",
        here=_address(opened),
        poll=POLL,
        poll_url=url_for("live.index", open=opened, order=order, mark=_mark(shown.mark)),
    )


@bp.get("/machines/<name>")
def machine(name: str) -> Response:
    """The GPUs that a machine has now."""
    found = instances.get(me(), name)
    if is_fragment() and _nothing_new():
        return Response(status=204)
    return render(
        "live/own.html",
        fragment="live/_own.html",
        heading=_("GPUs of %(name)s", name=found.name),
        back=found.name,
        **of_machine(found, attachments.by_machine([found]).get(found.id, ())),
    )


@bp.get(f"/bookings/{ID}")
def booking(booking_id: int) -> Response:
    """The GPUs of a booking, while it runs."""
    found = bookings.get(me(), booking_id)
    if is_fragment() and _nothing_new():
        return Response(status=204)
    return render(
        "live/own.html",
        fragment="live/_own.html",
        heading=_("GPUs of the booking"),
        back=words.what_of(found),
        **of_booking(found),
    )


def of_machine(found: Instance, has: Sequence[Allocation]) -> dict[str, Any]:
    """What the part of a machine's page shows: the GPUs that it `has` now, whichever they are the next time."""
    gpus = [allocation.gpu_id for allocation in has]
    page = url_for("machines.show", name=found.name)
    return _own(gpus, page, url_for("live.machine", name=found.name, mark=_mark(live.mark())))


def of_booking(found: Booking) -> dict[str, Any]:
    """What the part of a booking's page shows; nothing that asks again once it is over."""
    running = found.phase(clock.now()) == Phase.RUNNING
    gpus = [allocation.gpu_id for allocation in found.allocations if allocation.attached_at] if running else []
    page = url_for("bookings.show", booking_id=found.id)
    again = url_for("live.booking", booking_id=found.id, mark=_mark(live.mark())) if running else ""
    return _own(gpus, page, again)


def _own(gpus: list[int], page: str, again: str) -> dict[str, Any]:
    rows = live_words.rows(live.of(me(), gpus), me())
    return {"live_rows": rows, "live_poll": POLL, "live_page": page, "live_url": again}


def _address(opened: Sequence[str]) -> str:
    """The page with these hosts open. By hand: Flask takes a tenth of the page's time for one of each host."""
    page, query = url_for("live.index"), urlencode([("open", name) for name in opened])
    return f"{page}?{query}" if query else page


def _mark(mark: str) -> str:
    return f"{mark}.{int(clock.now().timestamp())}"


def _nothing_new() -> bool:
    """Whether the page that asks has what there is."""
    mark, _dot, made = request.args.get("mark", "").rpartition(".")
    return clock.now().timestamp() - (whole(made, 11) or 0) < STALE and mark == live.mark()


def _order() -> list[int]:
    numbers = request.args.get("order", "")[:4000].split(",")
    return [number for number in map(whole, numbers) if number is not None]


def _toggled(opened: list[str], name: str) -> list[str]:
    return [one for one in opened if one != name] if name in opened else [*opened, name]
