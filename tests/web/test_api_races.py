"""Many programs at once, each with a session of its own, on real commits. More of them, over HTTP: test_races."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from flask import Flask

from app import create_app
from app.extensions import db, transaction
from app.services import tokens
from tests.conftest import settings_for
from tests.factories import gpus_of, make_host, make_user

CLIENTS = 12
START = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) + timedelta(days=1)


@pytest.fixture
def served(fresh_db: str, tmp_path: Path) -> Iterator[Flask]:
    app = create_app(settings_for(fresh_db, tmp_path))
    yield app
    with app.app_context():
        db.engine.dispose()


@pytest.fixture
def at_once(served: Flask) -> Callable[[list[tuple[str, dict[str, Any]]]], list[Any]]:
    """Send each (token, body) as a booking at the same moment; the answers."""

    def send(asks: list[tuple[str, dict[str, Any]]]) -> list[Any]:
        ready = Barrier(len(asks))

        def one(ask: tuple[str, dict[str, Any]]) -> Any:
            client = served.test_client()
            ready.wait(30)
            return client.post("/api/v1/bookings", json=ask[1], headers={"Authorization": f"Bearer {ask[0]}"})

        with ThreadPoolExecutor(len(asks)) as pool:
            return list(pool.map(one, asks))

    return send


def window(hour: int, hours: int = 1) -> dict[str, str]:
    start = START + timedelta(hours=hour)
    return {"starts_at": start.isoformat(), "ends_at": (start + timedelta(hours=hours)).isoformat()}


def test_any_of_four_go_to_four(served: Flask, at_once: Callable[..., list[Any]]) -> None:
    with served.app_context(), transaction():
        make_host(gpus=4)
        texts = [tokens.create(make_user(), "race", ["book"])[1] for _ in range(CLIENTS)]
    answers = at_once([(text, {"count": 1, **window(0)}) for text in texts])
    assert Counter(answer.status_code for answer in answers) == {201: 4, 409: CLIENTS - 4}
    assert len({gpu for answer in answers if answer.status_code == 201 for gpu in answer.json["gpus"]}) == 4


def test_one_key_books_once(served: Flask) -> None:
    with served.app_context(), transaction():
        gpus = [gpu.id for gpu in gpus_of(make_host(gpus=CLIENTS))]
        text = tokens.create(make_user(), "race", ["book"])[1]
    headers = {"Authorization": f"Bearer {text}", "Idempotency-Key": "once"}
    ready = Barrier(CLIENTS)

    def one(gpu: int) -> Any:
        client = served.test_client()
        ready.wait(30)
        return client.post("/api/v1/bookings", json={"gpus": [gpu], **window(0)}, headers=headers)

    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = list(pool.map(one, gpus))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json["id"] for answer in answers}) == 1
