"""What the calendar's week costs, whatever is stored: time in the server, queries, bytes."""

from __future__ import annotations

import gc
import gzip
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from flask import Flask
from werkzeug.test import EnvironBuilder, run_wsgi_app

from app import clock, create_app
from app.config import Settings
from app.extensions import db, transaction
from app.models import User
from tests.bench.filling import PEOPLE, PLACES, Filling, crowd, fill
from tests.bench.installation import HOSTS, core, furnish
from tests.bench.others import watch
from tests.bench.report import Figure, Report, percentile
from tests.factories import make_user
from tests.page import Client

MONDAY = datetime(2026, 11, 2, tzinfo=UTC)
NOW = MONDAY + timedelta(days=2, hours=10)  # the clock is held there: each run shows the same page
IN_VIEW = 100
SIZES = (1_000, 100_000, 1_000_000)
MOST_MS, MOST_FULL_MS, MOST_QUERIES, MOST_GROWTH = 20, 40, 6, 1.25
MOST_BYTES = {"one host open": (70_000, 10_000), "all hosts open": (180_000, 28_000)}
OPENED, LIST = "as it opens", "as a list"
PAGES = {
    OPENED: "/calendar",
    "one host open": "/calendar?open=lab03",
    "all hosts open": "/calendar?" + "&".join(f"open=lab{number:02}" for number in range(1, HOSTS + 1)),
    LIST: "/calendar?view=list",
}
HOW = (
    "/calendar for somebody who is signed in, on a Wednesday at 10:00; 64 GPUs in eight hosts; 100 bookings in the "
    "week in view, as many a day in the four after it, and all others (without their ledger entries) before and after. "
    "The whole page with gzip, from the request's environment to the last byte, in one process, without the network. "
    "{rounds} rounds of {times} pages of each size, one by one in turn; what follows is with {most:,} stored, {fewer} "
    "pages a round. The others' figures are for JSON of as many bookings."
)

Get = Callable[[str], tuple[float, bytes]]


@dataclass(frozen=True)
class Page:
    """One address, asked for many times: the milliseconds of each round's pages, queries of one, and its bytes."""

    rounds: tuple[tuple[float, ...], ...]
    queries: int
    raw: int
    packed: int

    def p(self, share: float) -> tuple[float, ...]:
        return tuple(percentile(one, share) for one in self.rounds)


@dataclass(frozen=True)
class Portal:
    """A portal in this process: `get` fetches a page as the person who is signed in, and says how long it took."""

    app: Flask
    get: Get


def measure(settings: Sequence[Settings], sizes: Sequence[int] = SIZES, *, times: int = 100, rounds: int = 3) -> Report:
    """One installation for each size, all there at once, to be asked in turn."""
    fewer = max(1, times // 4)
    with ExitStack() as stack:
        stack.enter_context(clock.frozen(NOW))
        portals = []
        for one, size in zip(settings, sizes, strict=True):
            _prepare(one, size)
            portals.append(stack.enter_context(portal(one)))
        largest = portals[-1]
        _check(largest, IN_VIEW)
        others = watch()
        by_size = _pages([(portal, PAGES[OPENED]) for portal in portals], times, rounds)
        weather = Figure("cores that other programs took", (others(),))
        views = _pages([(largest, path) for path in PAGES.values()], fewer, rounds)
        with largest.app.app_context():
            crowd(Filling(MONDAY, NOW, IN_VIEW, sizes[-1]))
        _check(largest, PLACES)
        crowded = _pages([(largest, path) for path in PAGES.values()], fewer, rounds)
    figures = (
        *_by_size(dict(zip(sizes, by_size, strict=True))),
        weather,
        *_by_view(IN_VIEW, views),
        *_by_view(PLACES, crowded),
    )
    how = HOW.format(rounds=rounds, times=times, fewer=fewer, most=sizes[-1])
    return Report("week", how, figures)


def _by_size(found: dict[int, Page]) -> Iterator[Figure]:
    for size, page in found.items():
        others = (
            "TensorHive 170, LibreBooking 18 to 48" if size == 100_000 else "TensorHive 72" if size == 1_000 else ""
        )
        yield Figure(f"p50, {size:,} stored", page.p(0.5), "ms", most=MOST_MS, others=others)
    for size, page in found.items():
        yield Figure(f"p99, {size:,} stored", page.p(0.99), "ms")
    for size, page in found.items():
        yield Figure(f"queries, {size:,} stored", (page.queries,), most=MOST_QUERIES)
    p50s = zip(*(page.p(0.5) for page in found.values()), strict=True)
    growth = tuple(max(one) / min(one) for one in p50s)
    yield Figure("largest p50 / smallest p50", growth, most=MOST_GROWTH)


def _by_view(in_view: int, pages: Sequence[Page]) -> Iterator[Figure]:
    for name, page in zip(PAGES, pages, strict=True):
        others = "TensorHive 259, LibreBooking 395" if in_view == PLACES and name == OPENED else ""
        label = f"{in_view:,} in view, {name}"
        full = MOST_FULL_MS if in_view == PLACES and name in {OPENED, "one host open"} else None
        yield Figure(f"{label}: p50", page.p(0.5), "ms", most=full, others=others)
        yield Figure(f"{label}: queries", (page.queries,), most=MOST_QUERIES)
        raw, packed = MOST_BYTES.get(name, (None, None))
        yield Figure(f"{label}: bytes", (page.raw,), most=raw)
        yield Figure(f"{label}: bytes, gzip", (page.packed,), most=packed)


def _prepare(settings: Settings, size: int) -> None:
    with core(settings):
        furnish()
        with transaction():
            for number in range(PEOPLE):
                make_user(f"person-{number}", hours=0)
        fill(Filling(MONDAY, NOW, IN_VIEW, size))


@contextmanager
def portal(settings: Settings, username: str = "") -> Iterator[Portal]:
    """For the person of that name; else for the first one."""
    app = create_app(settings)
    query = sa.select(User).where(User.username == username if username else sa.true())
    with app.app_context():
        client = Client(app).login_as(db.session.scalars(query.order_by(User.id).limit(1)).one())
        db.session.remove()
    cookie = client.raw.get_cookie("session")
    assert cookie is not None
    gc.freeze()  # as wsgi.py does
    headers = {"Accept": "text/html", "Accept-Encoding": "gzip", "Cookie": f"session={cookie.value}"}
    yield Portal(app, lambda path: _served(app, path, headers))
    with app.app_context():
        db.engine.dispose()


def _served(app: Flask, path: str, headers: dict[str, str]) -> tuple[float, bytes]:
    """One page through WSGI, without what a test's client does beside it: milliseconds, and the body."""
    environ = EnvironBuilder(path, headers=headers).get_environ()
    began = time.perf_counter()
    chunks, status, answer = run_wsgi_app(app, environ, buffered=True)
    body = b"".join(chunks)
    took = time.perf_counter() - began
    assert (status, answer["Content-Encoding"]) == ("200 OK", "gzip"), status
    return 1000 * took, body


def _pages(wanted: Sequence[tuple[Portal, str]], times: int, rounds: int) -> list[Page]:
    for portal, path in wanted:
        for _ in range(max(1, times // 10)):
            portal.get(path)
    # One page of each after the other, so that what else the machine does slows all of them alike.
    taken = [[[portal.get(path)[0] for portal, path in wanted] for _ in range(times)] for _ in range(rounds)]
    found = zip(*(zip(*one, strict=True) for one in taken), strict=True)
    return [_page(portal, path, of_it) for (portal, path), of_it in zip(wanted, found, strict=True)]


def _page(portal: Portal, path: str, taken: tuple[tuple[float, ...], ...]) -> Page:
    queries = _queries(portal, path)
    packed = portal.get(path)[1]
    return Page(taken, queries, len(gzip.decompress(packed)), len(packed))


def _queries(portal: Portal, path: str) -> int:
    """How many statements the page runs when nothing is remembered from the one before."""
    seen: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        seen.append(statement)

    with portal.app.app_context():
        engine = db.engine
    portal.app.extensions.pop("berth_simulated", None)
    sa.event.listen(engine, "before_cursor_execute", note)
    portal.get(path)
    sa.event.remove(engine, "before_cursor_execute", note)
    return len(seen)


def _check(portal: Portal, in_view: int) -> None:
    """The page shows that many bookings."""
    found = gzip.decompress(portal.get(PAGES[LIST])[1]).count(b'<tr id="b')
    assert found == in_view, f"{found} bookings in view"
