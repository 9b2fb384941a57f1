"""Fifty clients at once, over HTTP, against the portal as it is served: two processes on a real database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask

from app import create_core
from app.extensions import db, transaction
from app.models import Allocation
from app.services import quota, tokens
from tests.conftest import settings_for
from tests.factories import gpus_of, make_host, make_user
from tests.served import Client, Portal, portal

CLIENTS, ROUNDS = 50, 20
START = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) + timedelta(days=1)

Ask = tuple[str, dict[str, Any]]
Answers = list[tuple[int, Any]]


@pytest.fixture
def core(fresh_db: str, tmp_path: Path) -> Iterator[Flask]:
    app = create_core(settings_for(fresh_db, tmp_path))
    with app.app_context():
        yield app
        db.session.remove()
        db.engine.dispose()


@pytest.fixture
def served(fresh_db: str, tmp_path: Path) -> Iterator[Portal]:
    with portal(fresh_db, tmp_path) as running:
        yield running


@pytest.fixture
def at_once(served: Portal) -> Iterator[Callable[[list[Ask]], Answers]]:
    """Send all of these bookings at the same moment, each by a client of its own."""
    ready = Barrier(CLIENTS, timeout=30)

    def one(ask: Ask) -> tuple[int, Any]:
        with Client(served.port, ask[0]) as client:
            ready.wait()
            return client.post("/api/v1/bookings", ask[1])

    with ThreadPoolExecutor(CLIENTS) as pool:
        yield lambda asks: list(pool.map(one, asks))


def ask(gpu: int, hour: int) -> dict[str, Any]:
    start = START + timedelta(hours=hour)
    return {"gpus": [gpu], "starts_at": start.isoformat(), "ends_at": (start + timedelta(hours=1)).isoformat()}


def token(**values: Any) -> tuple[str, int]:
    """A new person's token, and their account."""
    user = make_user(**values)
    return tokens.create(user, "race", ["book"])[1], user.account_id or 0


def test_one_gpu_and_hour_goes_to_one_of_fifty(core: Flask, at_once: Callable[[list[Ask]], Answers]) -> None:
    with transaction():
        gpu = gpus_of(make_host(gpus=1))[0].id
        everybody = [token()[0] for _ in range(CLIENTS)]
    for hour in range(ROUNDS):
        answers = at_once([(one, ask(gpu, hour)) for one in everybody])
        assert Counter(status for status, _ in answers) == {201: 1, 409: CLIENTS - 1}
        following = (START + timedelta(hours=hour + 1)).isoformat().replace("+00:00", "Z")
        assert {answer["next_free"] for status, answer in answers if status == 409} == {following}
    assert db.session.scalar(sa.select(sa.func.count()).select_from(Allocation)) == ROUNDS


def test_the_last_eight_hours_are_spent_once(core: Flask, at_once: Callable[[list[Ask]], Answers]) -> None:
    with transaction():
        gpus = [gpu.id for gpu in gpus_of(make_host(gpus=CLIENTS))]
        spenders = [token(hours=8) for _ in range(ROUNDS)]
    for hour, (text, account_id) in enumerate(spenders):
        answers = at_once([(text, ask(gpu, hour)) for gpu in gpus])
        assert Counter(status for status, _ in answers) == {201: 8, 422: CLIENTS - 8}
        assert {answer["code"] for status, answer in answers if status == 422} == {"quota"}
        with transaction():
            found = quota.balance(account_id)
        assert (found.held, found.free) == (8 * 3600, 0)
