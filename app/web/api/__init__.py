"""/api/v1, for programs: bearer tokens in, JSON out, every refusal a problem document (see `problems`)."""

from __future__ import annotations

from flask import Response, jsonify

from app.web.api import bookings, reads, series, waits
from app.web.api.blueprint import bp
from app.web.api.problems import is_api, problem
from app.web.api.spec import document

__all__ = ["bookings", "bp", "is_api", "problem", "reads", "series", "waits"]


@bp.get("/openapi.json")
def openapi() -> Response:
    """The description of all this for programs; open to everybody."""
    return jsonify(document())
