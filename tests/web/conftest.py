"""What the tests of pages have in common."""

from __future__ import annotations

import pytest


@pytest.fixture
def woken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hosts whose agents were woken."""
    found: list[str] = []
    monkeypatch.setattr("app.queue.wake", found.append)
    return found
