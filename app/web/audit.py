"""Who did what, newest first, for admins."""

from __future__ import annotations

from flask import Blueprint, Response, request

from app.services import audit
from app.web.render import render
from app.web.security import admin_required

bp = Blueprint("audit", __name__, url_prefix="/audit")

PAGE = 100


@bp.get("")
@admin_required
def index() -> Response:
    """One page of events, of everything or of one target."""
    target = request.args.get("target", "").strip()
    before = request.args.get("before", type=int)
    events = audit.recent(PAGE + 1, target or None, before)
    earlier_id = events[PAGE - 1].id if len(events) > PAGE else None
    return render("audit/index.html", events=events[:PAGE], target=target, earlier_id=earlier_id, later=before)
