"""A place on the waiting list in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app import clock
from app.language import gettext as _
from app.language import ngettext
from app.models import Gpu, Wait, WaitState
from app.services import openings
from app.services.waits import joining, line
from app.services.words import gpu_list
from app.web.bookings import words
from app.web.sessions import me
from app.web.times import moment_text
from app.web.waits.blueprint import bp

CODES = {
    WaitState.WAITING: "in_line",
    WaitState.OFFERED: "offered",
    WaitState.GRANTED: "booked",
    WaitState.EXPIRED: "expired",
    WaitState.WITHDRAWN: "withdrawn",
}


@dataclass(frozen=True)
class Row:
    """One place: `what` and `when` are what it was given, if that is so, else what it waits for. `place`: the how
    manieth in line; 0 for one that does not wait. `undo`: it was left just now."""

    wait: Wait
    what: str
    when: str
    state: str
    place: int = 0
    undo: bool = False


Offer = tuple[Row, str, str]


def rows(waits: Sequence[Wait]) -> list[Row]:
    """Each of them, with its place among all that wait."""
    waiting = any(wait.state == WaitState.WAITING for wait in waits)
    everyone = line.everybody() if waiting else []
    gpus = openings.usable_gpus() if waiting or any(wait.gpu_ids for wait in waits) else []
    return [row(wait, everyone, gpus) for wait in waits]


@bp.app_template_global()
def open_waits() -> tuple[list[Offer], list[Row]]:
    """The reader's offers, and what they still wait for; for pages on which these come beside other things."""
    found = rows(line.mine(me(), over=False))
    return offered(found), [one for one in found if one.state == "in_line"]


def offered(found: Sequence[Row]) -> list[Offer]:
    """The offers among them, each with until when it stands and how far away that is."""
    now = clock.now()
    return [
        (one, moment_text(one.wait.decide_by), words.away(one.wait.decide_by - now))
        for one in found
        if one.state == "offered" and one.wait.decide_by is not None
    ]


def row(wait: Wait, everyone: Sequence[Wait], gpus: Sequence[Gpu]) -> Row:
    """One of them; what was given must be loaded with it."""
    if wait.booking is not None:
        what, when = words.what_of(wait.booking), words.span(wait.booking.starts_at, wait.booking.ends_at)
    else:
        what, when = wish(wait, gpus), when_of(wait)
    place = line.place(wait, everyone, gpus) if wait.state == WaitState.WAITING else 0
    return Row(wait, what, when, CODES[WaitState(wait.state)], place, joining.can_return(wait))


def wish(wait: Wait, gpus: Sequence[Gpu]) -> str:
    """`2 GPUs, NVIDIA RTX A6000, on lab03`, `GPU 2 on lab03`."""
    named = [gpu for gpu in gpus if gpu.id in wait.gpu_ids]
    if named:
        return _("%(gpus)s on %(host)s", gpus=gpu_list(named), host=named[0].host.name)
    count = ngettext("%(num)s GPU", "%(num)s GPUs", wait.count)
    where = _("on %(host)s", host=wait.host) if wait.host else _("on any host")
    return _(", ").join([count, *([wait.model] if wait.model else []), where])


def when_of(wait: Wait) -> str:
    """`Tue 4 Nov 20:00 to 22:00, 2 h`, `2 h between Tue 4 Nov 20:00 and Fri 7 Nov 08:00`."""
    if wait.is_exact:
        return words.span(wait.starts_at, wait.ends_at)
    return _(
        "%(length)s between %(start)s and %(end)s",
        length=words.length(wait.seconds),
        start=moment_text(wait.starts_at),
        end=moment_text(wait.ends_at),
    )
