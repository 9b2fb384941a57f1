"""The report's page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Response, request, url_for

from app.errors import InvalidInput
from app.language import gettext as _
from app.services import policy
from app.services.reports import comparison, report
from app.services.reports.absences import NO_MACHINE, UNUSED
from app.services.reports.periods import Choice
from app.services.reports.report import RANKED, Report
from app.web import times
from app.web.render import render
from app.web.reports import asked, charts, sorting, words
from app.web.reports.asked import ALL, MINE, Asked
from app.web.reports.blueprint import bp
from app.web.sessions import me

KINDS = {"CSV": "reports.csv_file", "JSON": "reports.json_file", "Parquet": "reports.parquet_file"}


@bp.get("")
def index() -> Response:
    """What one may see of this month, or what the address asks for."""
    try:
        wish = asked.read(me())
    except InvalidInput as error:
        return _wrong(error)
    made = report.make(wish.choice, wish.shown, wish.group, wish.scope, wish.span, wish.now)
    when = words.period(wish.shown, wish.choice)
    return render(
        "reports/index.html",
        title=_title(wish),
        wish=wish,
        report=made,
        rows=wish.ordered(made.rows),
        **_frame(wish),
        **_shown(made, when),
    )


def _title(wish: Asked) -> str:
    if wish.team is not None:
        return _("Report of team %(name)s", name=wish.team.title)
    return _("My usage") if wish.of == MINE else _("Reports")


def _frame(wish: Asked | None) -> dict[str, Any]:
    """What is around every report: where else one can go from it."""
    found = asked.choices(me())
    return {
        "choices": Choice,
        "whose": found if len(found) > 1 else [],
        "dates": {name: request.args.get(name, "") for name in ("from", "to")}
        if wish is None or wish.choice == Choice.CUSTOM
        else {"from": wish.shown.first.isoformat(), "to": wish.shown.last.isoformat()},
        "words": words,
        "all_of_it": wish is not None and wish.of == ALL,
    }


def _shown(made: Report, when: str) -> dict[str, Any]:
    return {
        "when": when,
        "sentence": words.sentence(made, when),
        "finding": words.finding(made) if made.total.reserved else "",
        "bars": charts.bars(made.bars),
        "heat": charts.heat(made.week) if any(cell is not None for day in made.week for cell in day) else [],
        "weekdays": [_("Mon"), _("Tue"), _("Wed"), _("Thu"), _("Fri"), _("Sat"), _("Sun")],
        "comparison": comparison.of(made.total, made.before),
        "ranked": RANKED,
        "kinds": KINDS,
        "gpu_hours": words.hours_of_many(),
        "wasted_share": words.wasted_shares(RANKED),
        "moments": {
            "minute": times.moments("d MMM yyyy HH:mm"),
            "second": times.moments("d MMM yyyy HH:mm:ss"),
            "short": times.moments(),
        },
        "to_booking": _to_bookings(),
        "why": {one: words.absent(one) for one in (NO_MACHINE, UNUSED)},
        "steps": {one: words.step_of(one) for one in made.incidents.forced},
        "turned": sorting.turned,
        "rules": policy.current(),
    }


def _to_bookings() -> Callable[[int], str]:
    """The address of a booking by its id; a hundred of them take as long as a query when each is built by itself."""
    first = url_for("bookings.show", booking_id=0)
    return lambda number: f"{first.removesuffix('0')}{number}"


def _wrong(error: InvalidInput) -> Response:
    """What was typed, and what is wrong with it."""
    return render(
        "reports/wrong.html",
        status=422,
        errors_found=True,
        problem=error,
        title=_("Reports") if me().is_admin else _("My usage"),
        kept={name: request.args[name] for name in ("of", "group") if name in request.args},
        **_frame(None),
    )
