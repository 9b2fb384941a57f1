"""What was given back since GPUs did nothing, or would have been, for admins."""

from __future__ import annotations

from flask import Blueprint, Response

from app.language import gettext as _
from app.language import ngettext
from app.models import Outcome, Reclaim
from app.services import policy
from app.services.idle import told
from app.services.windows import hours_text
from app.web.render import render
from app.web.security import admin_required

bp = Blueprint("idle", __name__, url_prefix="/rules/idle")


@bp.get("")
@admin_required
def index() -> Response:
    """The last days'."""
    return render(
        "policy/idle.html",
        found=told.latest(),
        sentences=_sentences(policy.current().reclaim),
        outcome_text=_outcome_text,
        days=told.DAYS,
        most=told.MOST,
    )


def _sentences(mode: str) -> list[str]:
    modes = {
        Reclaim.OFF: _("Giving back is off: nobody is judged."),
        Reclaim.TRIAL: _("This is a trial: nobody is told, and nothing is taken away."),
        Reclaim.ON: _("Giving back is on."),
    }
    sums = told.sums()
    would, done, kept = (sums[one] for one in (Outcome.WOULD, Outcome.RECLAIMED, Outcome.KEPT))
    said = [modes[Reclaim(mode)]]
    if would.count:
        said.append(
            ngettext(
                "In trials, %(hours)s GPU-hours of %(num)s booking would have come back.",
                "In trials, %(hours)s GPU-hours of %(num)s bookings would have come back.",
                would.count,
                hours=hours_text(would.seconds),
            )
        )
    if done.count:
        said.append(
            ngettext(
                "%(hours)s GPU-hours of %(num)s booking came back.",
                "%(hours)s GPU-hours of %(num)s bookings came back.",
                done.count,
                hours=hours_text(done.seconds),
            )
        )
    if kept.count:
        said.append(ngettext('"Keep" was said %(num)s time.', '"Keep" was said %(num)s times.', kept.count))
    return said


def _outcome_text(outcome: str) -> str:
    words = {
        Outcome.WOULD: _("Would have been given back"),
        Outcome.RECLAIMED: _("Given back"),
        Outcome.KEPT: _("Kept by its owner"),
    }
    return words[Outcome(outcome)]
