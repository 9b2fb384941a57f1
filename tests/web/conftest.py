"""What the tests of pages have in common."""

from __future__ import annotations

import pytest

from app.models import User
from tests.factories import make_admin, make_user
from tests.page import Client


@pytest.fixture
def woken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hosts whose agents were woken."""
    found: list[str] = []
    monkeypatch.setattr("app.queue.wake", found.append)
    return found


@pytest.fixture
def user(client: Client) -> User:
    """Somebody with a hundred hours, who is signed in."""
    person = make_user("liwei")
    client.login_as(person)
    return person


@pytest.fixture
def admin(client: Client) -> User:
    """Ada, who is an admin and is signed in."""
    person = make_admin("ada", full_name="Ada")
    client.login_as(person)
    return person
