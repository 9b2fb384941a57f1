"""What was measured arrives and goes by several at once, on real commits: counted once, and nobody who reads waits."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask

from app.extensions import db, transaction
from app.models import UsageBatch, UsageDay, UsageHostHour, UsageHour, UsageMinute
from app.services import folding, policy, samples
from app.services.samples import Part
from tests.factories import make_host

NOW = datetime(2026, 11, 24, 6, tzinfo=UTC)
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
OLD, NEW = 400, 100  # minutes of each of two GPUs, before and after what is kept
AMOUNT = 60_000


@pytest.fixture
def host_id(core: Flask, freeze: Callable[[datetime], None]) -> int:
    """A host with two GPUs, and rules that keep minutes for a day and hours for two."""
    freeze(NOW)
    with core.app_context(), transaction():
        rules = policy.current()
        rules.minute_days, rules.hour_days = 1, 2
        return make_host("ws1", gpus=2).id


def parts(host_id: int, first: int, last: int) -> list[Part]:
    """What both GPUs did in these minutes before (if negative) or after the last that is pruned."""
    addresses = sorted(samples._gpus(host_id))
    return [
        Part(address, NOW - DAY + at * MINUTE, sampled_ms=AMOUNT, busy_ms=abs(at))
        for at in range(first, last)
        for address in addresses
    ]


def sums(core: Flask, model: type[UsageMinute | UsageHour | UsageDay | UsageHostHour]) -> tuple[int, int, int]:
    """Rows, and the milliseconds measured and busy."""
    with core.app_context():
        query = sa.select(sa.func.count(), sa.func.sum(model.sampled_ms), sa.func.sum(model.busy_ms)).select_from(model)
        rows, sampled, busy = db.session.execute(query).one()
        return int(rows), int(sampled or 0), int(busy or 0)


def test_agents_that_deliver_while_two_prune(core: Flask, host_id: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each batch twice and at once, the old ones late: in their hours and days once, and all that is old goes."""
    monkeypatch.setattr(folding, "AT_ONCE", 7)
    spans = [(first, first + 20) for first in range(-OLD, NEW, 20)]
    meet = Barrier(4, timeout=10)

    def deliver(order: int) -> None:
        with core.app_context():
            meet.wait()
            for first, last in spans[::order]:
                with transaction():
                    samples.deliver(host_id, f"batch {first}", parts(host_id, first, last))

    def prune() -> int:
        with core.app_context():
            meet.wait()
            return sum(_step() for _ in range(3 * len(spans)))

    with ThreadPoolExecutor(4) as pool:
        delivered = [pool.submit(deliver, order) for order in (1, -1)]
        pruned = [pool.submit(prune) for _ in range(2)]
        for one in delivered:
            one.result(60)
        removed = sum(one.result(60) for one in pruned)
    with core.app_context():
        while more := _step():
            removed += more
        assert db.session.scalar(sa.select(sa.func.count()).select_from(UsageBatch)) == len(spans)
    busy = 2 * sum(abs(at) for at in range(-OLD, NEW))
    assert sums(core, UsageDay)[1:] == (2 * (OLD + NEW) * AMOUNT, busy)
    assert sums(core, UsageHour)[1:] == (2 * (OLD + NEW) * AMOUNT, busy)
    assert sums(core, UsageHostHour)[1:] == (2 * (OLD + NEW) * AMOUNT, busy)
    assert sums(core, UsageMinute) == (2 * NEW, 2 * NEW * AMOUNT, 2 * sum(range(NEW)))
    assert removed == 2 * OLD


def _step() -> int:
    with transaction():
        return folding.prune()


def test_nobody_waits_for_one_who_prunes(core: Flask, host_id: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One is in the midst of it, uncommitted: another takes the next ones, and readers see everything that was."""
    monkeypatch.setattr(folding, "AT_ONCE", 100)
    with core.app_context(), transaction():
        samples.deliver(host_id, "all", parts(host_id, -OLD, NEW))
        db.session.execute(sa.update(UsageBatch).values(delivered_at=NOW - 16 * DAY))
        samples.deliver(host_id, "new", ())
    quick = {"options": "-c lock_timeout=200"}
    reader = sa.create_engine(core.config["SQLALCHEMY_DATABASE_URI"], connect_args=quick)
    with reader.connect() as in_flight, ThreadPoolExecutor(1) as pool, core.app_context():
        rows = in_flight.execution_options(stream_results=True, max_row_buffer=10).execute(sa.select(UsageMinute))
        seen = len(rows.fetchmany(10))
        with transaction():
            first = folding.prune()
            assert pool.submit(lambda: _aside(core)).result(10) == (200, 2 * (OLD + NEW))
        assert _step() == 200
        seen += len(rows.fetchall())
    reader.dispose()
    assert first == 201, "and the batch's name"
    assert seen == 2 * (OLD + NEW)
    assert sums(core, UsageMinute)[0] == 2 * (OLD + NEW) - 600


def _aside(core: Flask) -> tuple[int, int]:
    """Another pruner's step, and how many rows another reader sees before it, neither of them waiting for a lock."""
    with core.app_context(), transaction():
        db.session.execute(sa.text("SET LOCAL lock_timeout = 200"))
        seen: Any = db.session.scalar(sa.select(sa.func.count()).select_from(UsageMinute))
        return folding.prune(), int(seen)
