"""Every error as a page (or a sentence for htmx) that says what happened and what to do. Never a stack trace."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from flask import Flask, Response, current_app, g, make_response, render_template, request
from flask_limiter import RateLimitExceeded
from flask_wtf.csrf import CSRFError
from sqlalchemy.exc import DataError, InterfaceError, OperationalError
from werkzeug.exceptions import BadRequest, HTTPException

from app import clock, errors
from app.extensions import db, limiter
from app.language import gettext as _
from app.web import render
from app.web.api.problems import is_api, problem

STATUS = (  # the first that fits
    (errors.NotFound, 404),
    (errors.NotAllowed, 403),
    (errors.Conflict, 409),
    (errors.Unavailable, 503),
    (errors.DomainError, 422),
)


def init_app(app: Flask) -> None:
    """Answer for whatever a route raises: programs read a problem, people a page."""
    handlers: dict[type[Exception], Callable[[Any], Response]] = {
        errors.DomainError: _domain,
        CSRFError: _csrf,
        RateLimitExceeded: _too_many,
        HTTPException: _http,
        DataError: _unstorable,
        OperationalError: _database_away,
        InterfaceError: _database_away,
        Exception: _unexpected,
    }
    for kind, handler in handlers.items():
        app.register_error_handler(kind, _for_programs_too(handler))


def _for_programs_too(handler: Callable[[Any], Response]) -> Callable[[Exception], Response]:
    """An address under the API that no route of it answers (unknown, or the database away before it was reached)."""
    return lambda error: problem(error) if is_api() else handler(error)


def status_of(error: errors.DomainError) -> int:
    """The HTTP status for a refusal."""
    return next(status for kind, status in STATUS if isinstance(error, kind))


def _domain(error: errors.DomainError) -> Response:
    return _answer(status_of(error), error.brief, error.hint)


def _csrf(_error: CSRFError) -> Response:
    return _answer(400, _("This form is no longer valid."), _("Go back, reload the page and send it again."))


def _too_many(_error: RateLimitExceeded) -> Response:
    limit = limiter.current_limit
    seconds = max(1, round(limit.reset_at - clock.now().timestamp())) if limit else 60
    minutes = max(1, -(-(seconds - 5) // 60))  # five seconds more or less are no minute
    answer = _answer(
        429,
        _("Too many attempts."),
        _("Try again in 1 minute.") if minutes == 1 else _("Try again in %(minutes)s minutes.", minutes=minutes),
    )
    answer.headers["Retry-After"] = str(seconds)
    return answer


def _http(error: HTTPException) -> Response:
    if error.response is not None:  # abort(response): it is an answer already
        return make_response(error.response)
    if is_api():
        return problem(error)
    status = error.code or 500
    briefs = {
        400: (_("Berth could not read this request."), _("Go back, reload the page and try again.")),
        404: (_("There is no such page."), _("Check the address, or start from Home.")),
        405: (_("This page cannot be used this way."), _("Start from Home.")),
        413: (_("That is more than Berth accepts (1 MB)."), _("Send less.")),
    }
    brief, hint = briefs.get(status, (HTTPStatus(status).phrase, _("Start from Home.")))
    answer = _answer(status, brief, hint)
    if allowed := getattr(error, "valid_methods", None):
        answer.headers["Allow"] = ", ".join(sorted(allowed))
    return answer


def _unstorable(_error: DataError) -> Response:
    """A NUL in a text, a number beyond all bounds: nothing that anybody typed into a page of ours."""
    return _http(BadRequest())


def _database_away(error: Exception) -> Response:
    current_app.logger.error("database away: %s", error)
    g.bare = True  # this page must need no database
    return _answer(
        503,
        _("Berth cannot reach its database."),
        _("Running bookings go on and end on time. Try again in a minute."),
    )


def _unexpected(error: Exception) -> Response:
    reference = secrets.token_hex(4)
    path = request.path if request.endpoint != "feeds.calendar" else "/ics/…"  # a secret
    current_app.logger.error("unexpected error %s at %s %s", reference, request.method, path, exc_info=error)
    db.session.rollback()
    return _answer(
        500,
        _("Something went wrong in Berth."),
        _("Try again. If it stays, tell an admin the reference %(reference)s.", reference=reference),
    )


def _answer(status: int, brief: str, hint: str) -> Response:
    """The same words as a page, or as a sentence that htmx puts into the messages."""
    if not render.is_fragment():
        return make_response(render_template("error.html", brief=brief, hint=hint, status=status), status)
    answer = make_response(render_template("_flash.html", messages=[("error", f"{brief} {hint}".strip())]), status)
    answer.headers["HX-Retarget"] = "#flash"
    answer.headers["HX-Reswap"] = "outerHTML"
    return answer
