"""After each request that changed something, whoever waits for what it may have freed is served.

Whatever it was: a booking given back, hours granted, rules changed, a GPU in service again. Nobody has to think of it
there. What fails here has been answered already, and is done by the postman's next tick.
"""

from __future__ import annotations

from flask import Flask, Response, current_app, request
from sqlalchemy.exc import SQLAlchemyError

from app import serving
from app.web.security import SAFE

ONLY_TAKES = frozenset({"bookings.create", "api.create_booking"})  # what frees nothing, and should cost little


def init_app(app: Flask) -> None:
    """Look after the line when a request is over."""
    app.after_request(_serve)


def _serve(response: Response) -> Response:
    if request.method not in SAFE and response.status_code < 400 and request.endpoint not in ONLY_TAKES:
        try:
            serving.tend()
        except SQLAlchemyError:
            current_app.logger.exception("the waiting list was not served")
    return response
