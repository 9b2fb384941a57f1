"""Every refusal of the API as `application/problem+json` (RFC 9457): what, why, and what to do about it."""

from __future__ import annotations

import json
import logging
from typing import Any

from flask import Response, g, make_response, request
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import HTTPException

from app.errors import (
    Conflict,
    DomainError,
    InvalidInput,
    NotAllowed,
    NotFound,
    QuotaExceeded,
    RuleRefused,
    SlotTaken,
    Unavailable,
)
from app.language import gettext as _
from app.services.tokens import BadToken
from app.web.api.answers import AlternativeOut, ClashOut, FieldError
from app.web.api.moments import iso_z

log = logging.getLogger(__name__)

PREFIX = "/api/"
MEDIA_TYPE = "application/problem+json"
TYPE = "urn:berth:problem:"
STATUS: tuple[tuple[type[DomainError], int], ...] = (
    (BadToken, 401),
    (NotAllowed, 403),
    (NotFound, 404),
    (Conflict, 409),
    (InvalidInput, 422),
    (RuleRefused, 422),
    (Unavailable, 503),
)
TITLES = {
    400: "Bad request",
    401: "Not signed in",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict",
    413: "Too large",
    415: "Not JSON",
    422: "Refused",
    429: "Too many requests",
    500: "Internal error",
    503: "Away",
}


class BadBody(DomainError):
    """The request's body is no JSON object (400), of another media type (415), or too large (413)."""

    code = "body"

    def __init__(self, status: int, brief: str, hint: str = "") -> None:
        super().__init__(brief, hint)
        self.status = status


class BadFields(DomainError):
    """The body or the query has fields that are missing, unknown, or not what they must be."""

    code = "invalid"

    def __init__(self, errors: list[FieldError]) -> None:
        first = errors[0]
        super().__init__(f"{first.field}: {first.message}" if first.field else first.message)
        self.errors = errors


def is_api() -> bool:
    """Whether this request is for a program: its errors are problems, not pages."""
    return request.path.startswith(PREFIX)


def problem(error: Exception) -> Response:
    """The answer to any error; one that nobody foresaw becomes a 500 that tells nothing but goes to the log."""
    g.bare = True  # whoever calls has no session: its language is the request's
    if isinstance(error, DomainError):
        return _domain(error)
    if isinstance(error, HTTPException):
        return _http(error)
    if isinstance(error, DBAPIError):
        return _database(error)
    if isinstance(error, PoolTimeout):
        return _away()
    log.error("unhandled error in the API", exc_info=error)
    return _answer(
        500, "internal", _("Something went wrong inside Berth."), _("Try again; if it stays, tell an admin.")
    )


def _domain(error: DomainError) -> Response:
    status = error.status if isinstance(error, BadBody) else 422
    status = next((code for kind, code in STATUS if isinstance(error, kind)), status)
    extra: dict[str, Any] = {}
    if isinstance(error, BadFields):
        extra["errors"] = [one.model_dump() for one in error.errors]
    elif status == 422:
        extra["errors"] = [{"field": getattr(error, "field", ""), "message": str(error)}]
    if isinstance(error, QuotaExceeded):
        extra |= {f"{name}_hours": round(int(str(error.details[name])) / 3600, 4) for name in ("needed", "free")}
    elif isinstance(error, RuleRefused):
        extra |= {key: value for key, value in error.details.items() if isinstance(value, str | int)}
    if isinstance(error, Conflict):
        extra |= _conflict(error)
    response = _answer(status, error.code, error.brief, error.hint, **extra)
    if status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="berth"'
    if status == 503:
        response.headers["Retry-After"] = "5"
    return response


def _conflict(error: Conflict) -> dict[str, Any]:
    if not isinstance(error, SlotTaken):
        return {"next_free": None, "clashes": [], "alternatives": []}
    return {
        "next_free": iso_z(error.next_free),
        "clashes": [ClashOut.model_validate(clash).model_dump() for clash in error.clashes],
        "alternatives": [
            AlternativeOut(
                kind=one.kind, host=one.host, gpus=list(one.gpu_ids), starts_at=one.starts_at, ends_at=one.ends_at
            ).model_dump()
            for one in error.alternatives
        ],
    }


def _http(error: HTTPException) -> Response:
    if error.response is not None:
        return make_response(error.response)
    status = error.code or 500
    words = {
        404: (_("There is nothing at this address."), _("GET /api/v1/openapi.json lists what there is.")),
        405: (_("This address does not take %(method)s.", method=request.method), _("See the header Allow.")),
        413: (_("The request is too large."), _("64 KiB at most.")),
        429: (_("Too many requests."), _("Wait a minute and try again.")),
    }
    detail, hint = words.get(status, (error.description or "", ""))
    response = _answer(status, f"http_{status}", detail, hint)
    for name, value in error.get_headers():
        if name.lower() in {"allow", "retry-after"}:
            response.headers[name] = value
    if status == 429:
        response.headers.setdefault("Retry-After", "60")
    return response


def _database(error: DBAPIError) -> Response:
    constraint = getattr(getattr(error.orig, "diag", None), "constraint_name", None)
    # The database's own word, should a race ever get past the services' locks.
    if isinstance(error, IntegrityError) and constraint == "ex_allocations_overlap":
        return _domain(SlotTaken(_("Somebody else was first to book one of these GPUs."), _("Try again.")))
    if isinstance(error, IntegrityError) and constraint == "quota_exceeded":
        return _answer(422, "quota", _("The account's quota does not suffice."), "", errors=[])
    if isinstance(error, OperationalError) or error.connection_invalidated:
        log.warning("the database could not answer: %s", type(error.orig).__name__)
        return _away()
    log.error("database error in the API", exc_info=error)
    return _answer(
        500, "internal", _("Something went wrong inside Berth."), _("Try again; if it stays, tell an admin.")
    )


def _away() -> Response:
    return _domain(Unavailable(_("Berth's database is away or busy."), _("Try again in a few seconds.")))


def _internal() -> Response:
    return _answer(
        500, "internal", _("Something went wrong inside Berth."), _("Try again; if it stays, tell an admin.")
    )


def _answer(status: int, code: str, detail: str, hint: str, **extra: Any) -> Response:
    title = TITLES.get(status, "Error")
    body = {"type": TYPE + code, "title": title, "status": status, "code": code, "detail": detail, "hint": hint}
    return Response(json.dumps(body | extra), status, content_type=MEDIA_TYPE)
