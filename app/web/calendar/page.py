"""The calendar's page and its parts, from one context."""

from __future__ import annotations

from functools import partial
from typing import Any

from flask import Response, url_for

from app import clock
from app.errors import DomainError
from app.language import gettext as _
from app.models import GpuState
from app.services import calendar, months
from app.services.calendar import Shown
from app.services.periods import Kind
from app.web import times
from app.web.bookings.blueprint import slot
from app.web.calendar import phone, words
from app.web.calendar.blueprint import compact
from app.web.calendar.moments import Moments
from app.web.calendar.view import View
from app.web.render import render
from app.web.sessions import me

POLL = 5  # seconds between two questions whether anything has changed
OWN = 8  # of one's bookings, on a phone
GAPS = 150  # links to free places; where there would be more, they would be half the page: the cells lead on then
STEPS = {Kind.DAY: 900, Kind.WEEK: 1800}  # seconds: what dragging snaps to, if the grid is not coarser


def page(view: View, *, fragment: str, status: int = 200, refused: DomainError | None = None, **more: Any) -> Response:
    """The page with this view of the calendar, or its part; `refused`: why a booking was not changed."""
    now = clock.now()
    context = _month(view) if view.kind == Kind.MONTH else _timeline(view)
    shown = context["shown"]
    return render(
        "calendar/index.html",
        fragment=fragment,
        status=status,
        view=view,
        kinds=[(Kind.DAY, _("Day")), (Kind.WEEK, _("Week")), (Kind.MONTH, _("Month"))],
        period=words.period_text(shown.period),
        today=now.astimezone(times.viewer_zone()).date(),
        refused=refused,
        poll=POLL,
        live_url=view.url(endpoint="calendar.live", mark=f"{shown.mark}.{int(now.timestamp())}"),
        **context,
        **more,
    )


def _month(view: View) -> dict[str, Any]:
    shown = months.show(me(), view.period, view.wanted)
    own = any(row.own for row in shown.hosts)
    return {"shown": shown, "of_a_day": words.of_a_day, "none_of_mine": view.mine and not own}


def _timeline(view: View) -> dict[str, Any]:
    shown = calendar.show(me(), view.period, view.wanted)
    hours, form, said = words.hours(shown.period), url_for("bookings.new"), Moments()
    with_gaps = sum(len(line.gaps) for row in shown.hosts for line in row.rows) <= GAPS
    return {
        "shown": shown,
        "summary": _summary(shown),
        "hours": hours,
        "span": len(hours) // len(shown.days),
        "cells": words.cell_links(shown, view.model, form),
        "edges": words.edges(shown),
        "step": max(STEPS[view.kind], slot()),
        "lane": words.Lane(said, form, with_gaps=with_gaps),
        "form": form,
        "phone_line": partial(phone.line, said),
        "none_of_mine": view.mine and not any(one.mine for one in shown.entries),
        "waited": any(row.waiting or any(cell.waited for cell in row.cells) for row in shown.hosts),
        "quarantine": any(GpuState.QUARANTINE in row.closed and not row.open for row in shown.hosts),
        "own": [one for one in shown.entries if one.mine and one.state != "ended"][:OWN],
        "phone_day": view.day,
        "short": said.text,
        "compact": compact,
        "all_open": calendar.all_open(shown),
    }


def _summary(shown: Shown) -> dict[str, Any]:
    """What is worth a sentence: nothing booked, or nothing free."""
    if not shown.hosts:
        return {"none": True}
    if not shown.any_booking and shown.now_unit is not None:
        return {"empty": True}
    if shown.now_unit is not None and not shown.free_now:
        soonest = sorted((row.next_free, row.host.name) for row in shown.hosts if row.next_free is not None)
        return {"full": True, "soonest": soonest[0] if soonest else None}
    return {}
