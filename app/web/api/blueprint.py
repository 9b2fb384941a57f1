"""The API's one blueprint; its routes are in `bookings`, `waits` and `reads`, what comes before each in `admit`."""

from __future__ import annotations

from flask import Blueprint, Response, current_app, g, request
from werkzeug.exceptions import BadRequest

from app.extensions import settings
from app.language import gettext as _
from app.web.api.auth import bearer, sign_in
from app.web.api.problems import BadBody, problem

BIGGEST_BODY = 64 * 1024
OPEN = frozenset({"api.openapi"})

bp = Blueprint("api", __name__, url_prefix="/api/v1")
bp.register_error_handler(Exception, problem)


def slot() -> int:
    """The lab's grid, in seconds."""
    return settings().slot


@bp.before_request
def admit() -> None:
    """Token, then scope, then a body that is a small JSON object; only after that its fields."""
    g.bare = True  # no session is looked for
    request.max_content_length = BIGGEST_BODY
    if request.endpoint in OPEN:
        return
    sign_in()
    view = current_app.view_functions[request.endpoint or ""]
    bearer().require(view.__dict__["scope"])
    if request.method in {"POST", "PATCH"}:
        _read_body()


@bp.after_request
def private(response: Response) -> Response:
    """What a token opens is for nobody's cache."""
    response.headers.setdefault("Cache-Control", "no-store")
    return response


def _read_body() -> None:
    if not request.get_data(cache=True):
        return  # the same as {}
    if not request.is_json:
        raise BadBody(415, _("The body must be JSON."), _("Send the header Content-Type: application/json."))
    try:
        body = request.get_json()
    except (BadRequest, RecursionError) as error:
        raise BadBody(400, _("The body is not valid JSON.")) from error
    if not isinstance(body, dict):
        raise BadBody(400, _("The body must be a JSON object."))
