"""An installation to measure: its servers exactly as `berth up` starts them, on the disk where it keeps its data."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from flask import Flask

from app import create_core
from app.config import Settings
from app.extensions import db, transaction
from app.models import Gpu
from app.schema import upgrade
from tests.factories import gpus_of, make_host
from workers.servers import Servers

HOSTS, GPUS = 8, 8


@contextmanager
def installation(data: Path) -> Iterator[Settings]:
    """A new one with PostgreSQL and Valkey running and the newest schema; gone at the end."""
    shutil.rmtree(data, ignore_errors=True)  # of a run that was killed
    servers = Servers(Settings.load({"BERTH_DATA": str(data), "BERTH_TZ": "UTC"}), {})
    try:
        servers.start(time.sleep)
        upgrade(servers.settings.database_url)
        yield servers.settings
    finally:
        servers.stop(lambda: False)
        shutil.rmtree(data, ignore_errors=True)


@contextmanager
def core(settings: Settings, make: Callable[[Settings], Flask] = create_core) -> Iterator[Flask]:
    """Its services at hand, as an agent has them or as another one does."""
    app = make(settings)
    with app.app_context():
        yield app
        db.session.remove()
        db.engine.dispose()


def furnish() -> list[Gpu]:
    """64 GPUs in eight hosts, in order."""
    with transaction():
        return [gpu for number in range(1, HOSTS + 1) for gpu in gpus_of(make_host(f"lab{number:02}", gpus=GPUS))]
