"""A program that calls the API with a token, as in real life: no cookies, JSON in and out."""

from __future__ import annotations

from typing import Any

from app.extensions import db
from app.models import User
from app.services import tokens
from tests.page import Client, Page


class Answer:
    """One answer; a refusal is checked to be a whole problem document."""

    def __init__(self, page: Page) -> None:
        self.status, self.headers = page.status, page.headers
        self.json: Any = page.response.get_json(force=True) if page.body else None
        if self.status >= 400:
            assert page.headers["Content-Type"] == "application/problem+json", page.headers["Content-Type"]
            assert self.json["status"] == self.status
            assert self.json["type"] == f"urn:berth:problem:{self.json['code']}"
            assert self.json["title"]
            assert self.json["detail"]
            assert isinstance(self.json["hint"], str)
            assert "Traceback" not in page.body
        assert "Set-Cookie" not in self.headers
        assert self.headers["Cache-Control"] == "no-store"

    def fields(self) -> list[str]:
        """The fields that a 422 complains about."""
        assert self.status == 422, (self.status, self.json)
        return [error["field"] for error in self.json["errors"]]


class Caller:
    """Calls with one token; "" sends none."""

    def __init__(self, client: Client, token: str) -> None:
        self.client, self.token = client, token

    def __call__(self, method: str, path: str, body: Any = None, **kwargs: Any) -> Answer:
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        headers |= kwargs.pop("headers", {})
        if body is not None:
            kwargs["json"] = body
        return Answer(self.client._request(method, f"/api/v1{path}", headers=headers, **kwargs))

    def get(self, path: str, **kwargs: Any) -> Answer:
        return self("GET", path, **kwargs)

    def post(self, path: str, body: Any = None, **kwargs: Any) -> Answer:
        return self("POST", path, body, **kwargs)

    def delete(self, path: str) -> Answer:
        return self("DELETE", path)


def caller(client: Client, user: User, *scopes: str) -> Caller:
    """A caller with a new token of this person; all scopes they may have unless some are named."""
    every = tokens.SCOPES if user.is_admin else (tokens.READ, tokens.BOOK)
    _token, text = tokens.create(user, "test", scopes or every)
    db.session.commit()
    return Caller(client, text)
