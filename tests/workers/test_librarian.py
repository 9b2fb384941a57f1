"""The thread that brings NVIDIA's libraries: again and again, told once, and stopped by nothing that goes wrong."""

from __future__ import annotations

import logging
import threading

import pytest

from app.drivers.base import HostUnreachable
from app.drivers.libraries import Way
from workers.librarian import Librarian


class Host:
    """Answers in turn; the last answer ends the thread."""

    def __init__(self, *answers: Way | Exception) -> None:
        self.answers, self.stop = list(answers), threading.Event()

    def bring_libraries(self) -> Way:
        answer = self.answers.pop(0)
        if not self.answers:
            self.stop.set()
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_it_tells_what_changes_and_goes_on_after_trouble(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    away = HostUnreachable("Bring NVIDIA's libraries", "no socket")
    host = Host(Way.INSTALL, Way.INSTALL, away, RuntimeError("a bug"), Way.MOUNT)
    Librarian("ws1", host).run(host.stop, every=0)  # type: ignore[arg-type]
    told = [record.getMessage().rpartition(": ")[2] for record in caplog.records if record.levelno == logging.INFO]
    assert told == ["install", "no socket", "mount"]
    assert host.answers == []
