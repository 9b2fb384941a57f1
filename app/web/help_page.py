"""The page that "?" opens: which keys there are."""

from __future__ import annotations

from flask import Blueprint, Response

from app.web.render import render

bp = Blueprint("help", __name__, url_prefix="/help")


@bp.get("")
def index() -> Response:
    """Keys, and how to switch them off."""
    return render("help/index.html")
