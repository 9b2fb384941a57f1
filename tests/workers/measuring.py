"""What the tests of reading GPUs and of bringing that to the database have in common."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime, timedelta

import sqlalchemy as sa
from flask import Flask

from app.drivers.base import HostSeen
from app.drivers.gauges import NvmlGauges
from app.drivers.kernel import Process
from app.extensions import db
from app.models import Booking, Consumer, UsageMinute
from tests.drivers.nvml_stub import Gpu, whole
from tests.factories import make_booking
from tests.workers.house import NOW, House
from workers.delivery import Delivery
from workers.sampler import Sampler

Freeze = Callable[[datetime], None]
HOUR = timedelta(hours=1)


class Kernel:
    """A host whose GPUs NVML reads; which process is whose is said by the test."""

    def __init__(self, gauges: NvmlGauges) -> None:
        self.gauges = gauges
        self.people: dict[int, Process] = {}

    def whose(self, _seen: HostSeen, pids: Collection[int]) -> dict[int, Process]:
        return {pid: one for pid, one in self.people.items() if pid in pids}


def steps(
    sampler: Sampler, house: House, freeze: Freeze, begin: datetime, number: int, kernel: object = None
) -> datetime:
    """So many readings, two seconds apart, the first of which stands for no time; when the last was."""
    for index in range(number):
        freeze(begin + timedelta(seconds=2 * index))
        at = begin + timedelta(seconds=2 * index)
        sampler.step(kernel or house.kernel, at, 2.0 if index else 0.0)  # type: ignore[arg-type]
    return at


def deliver(app: Flask, house: House, sampler: Sampler) -> int:
    return Delivery(app, "lab", sampler).deliver(house.host.id)


def minutes(column: sa.ColumnElement[int] = UsageMinute.sampled_ms) -> dict[tuple[int, datetime, int, str], int]:
    query = sa.select(UsageMinute.gpu_id, UsageMinute.minute, Consumer.booking_id, Consumer.instance, column)
    rows = db.session.execute(query.join(Consumer, Consumer.id == UsageMinute.consumer_id))
    return {(gpu, minute, booking or 0, instance): value for gpu, minute, booking, instance, value in rows}


def booked(house: House) -> Booking:
    booking = make_booking(house.alice, house.gpus[:1], NOW, NOW + HOUR)
    house.run()
    return booking


def cards(house: House) -> list[Gpu]:
    """As NVML lists the house's GPUs: their addresses are by number, from 1."""
    return [whole(gpu.minor + 1) for gpu in house.gpus]
