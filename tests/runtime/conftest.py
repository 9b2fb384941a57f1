"""One `berth up` for all that ask for it; test_up stops it, and comes after all others that do."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.receivers import Mailbox, mail_server
from tests.runtime.running import Berth


@pytest.fixture(scope="session")
def data() -> Iterator[Path]:
    """A data directory of its own, where every user may pass through: the database has a user of its own under root."""
    folder = Path(tempfile.mkdtemp(prefix="berth-test-"))
    folder.chmod(0o755)
    yield folder / "var"
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def mailbox() -> Iterator[tuple[str, Mailbox]]:
    """A mail server that goes on over everything: its address, and what it took."""
    with mail_server() as (address, box):
        yield address, box


@pytest.fixture(scope="session")
def berth(data: Path, mailbox: tuple[str, Mailbox]) -> Iterator[Berth]:
    running = Berth(data, BERTH_SMTP=mailbox[0], BERTH_TICK="300")  # what comes sooner came by a wake
    try:
        yield running.ready()
    finally:
        if running.process.poll() is None:
            running.stop()
        running.kill()
