"""The OpenAPI document, made from the routes; what spectree writes is corrected where the API is more exact."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from typing import Any

from flask import Request, Response
from pydantic import BaseModel, ValidationError
from spectree import Response as Answers
from spectree import SecurityScheme, SpecTree
from spectree.models import SecureType, SecuritySchemeData

from app.web.api.answers import ConflictProblem, InvalidProblem, Problem
from app.web.api.problems import MEDIA_TYPE, BadFields
from app.web.api.schemas import field_errors

ITSELF = {
    "summary": "This document",
    "operationId": "get_openapi.json",
    "security": [],
    "tags": ["about"],
    "responses": {"200": {"description": "OK", "content": {"application/json": {"schema": {"type": "object"}}}}},
}
View = Callable[..., Response]

ERRORS: dict[int, type[BaseModel]] = {
    400: Problem,
    401: Problem,
    403: Problem,
    404: Problem,
    409: ConflictProblem,
    413: Problem,
    415: Problem,
    422: InvalidProblem,
    429: Problem,
    500: Problem,
    503: Problem,
}


def _refuse(_request: Request, _answer: Any, error: Exception | None, _view: Any, _adapter: Any) -> None:
    """Spectree's hook before the view: its finding becomes a problem of ours."""
    if isinstance(error, ValidationError):
        raise BadFields(field_errors(error.errors(include_context=False, include_url=False)))


def _silent(*_arguments: Any) -> None:
    """Spectree's hook after the view; nothing to do."""


spectree = SpecTree(
    "flask",
    title="Berth",
    description=(
        "Book GPUs and read what is booked. Times are ISO-8601 with a zone; answers are in UTC. "
        "A token's scopes: read (what its person sees), book (make and change bookings), "
        "admin (act with its person's admin role)."
    ),
    version="1",
    mode="strict",
    path="api/v1/unused",
    naming_strategy=lambda model: model.__name__,
    nested_naming_strategy=lambda _parent, child: child,
    security_schemes=[
        SecurityScheme(
            name="token",
            data=SecuritySchemeData(type=SecureType.HTTP, scheme="bearer", description="berth_<id>_<43 characters>"),
        )
    ],
    before=_refuse,
    after=_silent,
    validation_error_model=InvalidProblem,
)


def describe(
    *,
    tag: str,
    errors: tuple[int, ...] = (),
    status: int = 200,
    answer: Any = None,
    scope: str = "read",
) -> Callable[[Callable[..., Any]], View]:
    """Declare a route for the document: what it answers, which problems it may give, which scope it needs."""
    always = (401, 403, 422, 429, 500, 503)
    models: dict[str, Any] = {f"HTTP_{code}": ERRORS[code] for code in sorted({*always, *errors})}
    if answer is not None:
        models[f"HTTP_{status}"] = answer
    wrap = spectree.validate(resp=Answers(**models), tags=[tag], security={"token": [scope]})

    def decorate(view: Callable[..., Any]) -> View:
        wrapped: View = wrap(view)
        wrapped.__dict__["scope"] = scope
        return wrapped

    return decorate


@cache
def document() -> dict[str, Any]:
    """The OpenAPI 3.1 document of this API."""
    found: dict[str, Any] = copy.deepcopy(spectree.spec)
    for path, methods in found["paths"].items():
        for method, operation in methods.items():
            operation["operationId"] = "_".join([method, *(part.strip("{}") for part in path.split("/")[3:])])
            for parameter in operation["parameters"]:
                _widen_ids(parameter)
            for status, response in operation["responses"].items():
                if int(status) >= 400 and "content" in response:
                    response["content"] = {MEDIA_TYPE: response["content"]["application/json"]}
    found["paths"]["/api/v1/openapi.json"] = {
        "get": {
            "summary": "This document",
            "operationId": "get_openapi.json",
            "security": [],
            "tags": ["about"],
            "responses": {
                "200": {"description": "OK", "content": {"application/json": {"schema": {"type": "object"}}}}
            },
        }
    }
    return found


def _widen_ids(parameter: dict[str, Any]) -> None:
    if parameter["in"] == "path" and parameter["schema"].get("type") == "integer":
        parameter["schema"] = {"type": "integer", "format": "int64", "minimum": 1}
