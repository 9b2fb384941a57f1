"""A turn of a thread of the agent, and what the log says of one that failed."""

from __future__ import annotations

import logging

import pytest
from sqlalchemy.exc import OperationalError

from app.drivers.base import DriverError
from app.errors import NotFound
from workers.turns import turn

log = logging.getLogger(__name__)


@pytest.mark.parametrize(
    ("error", "level", "told"),
    [
        (OperationalError("SELECT 1", {}, OSError("gone")), logging.DEBUG, []),
        (NotFound("There is no host lab01."), logging.DEBUG, []),
        (DriverError("LXD is away", "start it"), None, ["LXD is away: start it"]),
        (ZeroDivisionError("by mistake"), logging.ERROR, []),
    ],
)
def test_whatever_fails_the_thread_lives_on(
    error: Exception, level: int | None, told: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    heard: list[str] = []
    with turn(log, "the check of lab01", heard.append):
        raise error
    assert heard == told
    assert [record.levelno for record in caplog.records] == ([level] if level else [])
    assert all("the check of lab01" in record.getMessage() for record in caplog.records)


def test_without_an_ear_for_trouble_it_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with turn(log, "the check of lab01"):
        raise DriverError("LXD is away")
    assert "the check of lab01 failed" in caplog.text
