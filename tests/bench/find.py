"""What "find me a slot" costs over 64 GPUs with 100,000 bookings to come: each search whole, its proposals tried."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import timedelta

from app import clock, create_app
from app.config import Settings
from app.extensions import db, transaction
from app.models import Policy, User
from app.services import slots
from app.services.slots import Wish
from tests.bench.filling import PEOPLE, to_come
from tests.bench.installation import core, furnish
from tests.bench.report import Figure, Report, percentile
from tests.bench.week import NOW
from tests.factories import make_user

TO_COME = 100_000
SLOT = 900
MOST_MS = 30
DAYS = 28  # the rules' own horizon, and so many that the whole calendar is looked through
FAR_DAYS = 365
WISHES: Mapping[str, Wish] = {
    "2 GPUs for 6 h, before Friday of next week": Wish(2, 6 * 3600, before=NOW + timedelta(days=9)),
    "1 GPU for 1 h, the earliest": Wish(1, 3600),
    "2 GPUs for 6 h, nearest to two weeks from now": Wish(2, 6 * 3600, near=NOW + timedelta(days=14)),
    "4 GPUs for 24 h, of which there are none": Wish(4, 24 * 3600),
}
HOW = (
    "slots.find for somebody on a Wednesday at 10:00, 64 GPUs in eight hosts, all but one in a hundred places of eight "
    "hours booked for more than 500 days; {stored:,} bookings to come; {rounds} rounds of {times} of each wish"
)


def measure(settings: Settings, *, stored: int = TO_COME, times: int = 30, rounds: int = 3) -> Report:
    """One installation, each wish in turn."""
    with clock.frozen(NOW), core(settings, create_app):
        furnish()
        with transaction():
            people = [make_user(f"person-{number}", hours=0) for number in range(PEOPLE)]
            seeker = make_user("seeker", hours=100_000)
            to_come(NOW, stored, [person.id for person in people])
        with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM ANALYZE")
        near = _rounds(seeker.id, times, rounds)
        with transaction():
            db.session.get_one(Policy, 1).horizon_days = FAR_DAYS
        far = _rounds(seeker.id, max(1, times // 10), rounds)
    figures = [
        Figure(f"{name}: p50", tuple(percentile(one, 0.5) for one in found), "ms", most=MOST_MS)
        for name, found in near.items()
    ]
    figures += [
        Figure(f"{name}, {FAR_DAYS} days bookable: p50", tuple(percentile(one, 0.5) for one in found), "ms")
        for name, found in far.items()
    ]
    return Report("find", HOW.format(stored=stored, rounds=rounds, times=times), tuple(figures))


def _rounds(seeker_id: int, times: int, rounds: int) -> dict[str, list[list[float]]]:
    found: dict[str, list[list[float]]] = {name: [] for name in WISHES}
    for name, wish in WISHES.items():
        _once(seeker_id, wish)
        for _ in range(rounds):
            found[name].append([_once(seeker_id, wish) for _ in range(times)])
    return found


def _once(seeker_id: int, wish: Wish) -> float:
    """As a request does it: a session of its own, the person read before the clock runs. Milliseconds."""
    db.session.remove()
    seeker = db.session.get_one(User, seeker_id)
    began = time.perf_counter()
    slots.find(seeker, wish, SLOT)
    return 1000 * (time.perf_counter() - began)
