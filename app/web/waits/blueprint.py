"""What the waiting list's pages share."""

from __future__ import annotations

from flask import Blueprint

bp = Blueprint("waits", __name__, url_prefix="/waits")
everybodys = Blueprint("everybodys_waits", __name__, url_prefix="/waits")  # for admins

ID = "<int(min=1, max=9223372036854775807):wait_id>"
EXACT = "exact"  # in a link's `hours`: the whole time
