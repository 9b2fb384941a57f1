"""GPUs that do nothing, to their owner: the notice, the page that says so by itself, and "Keep" up to the limit."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from flask import Flask
from playwright.sync_api import BrowserContext, expect
from sqlalchemy.orm import joinedload

from app import clock, create_core
from app.extensions import db, lab_zone, transaction
from app.models import Allocation, Idling, Notice, Reclaim
from app.services import news, notice_words, policy, samples
from app.services.idle import steps
from app.services.samples import Part
from tests.browser.reader import Reader
from tests.conftest import settings_for
from tests.factories import gpus_of, make_booking, make_host, make_user
from tests.served import portal

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)


@pytest.fixture
def core(fresh_db: str, tmp_path: Path) -> Iterator[Flask]:
    """Li Wei has two GPUs since two hours and did nothing in the last. No agent measures more, and no postman looks."""
    app = create_core(settings_for(fresh_db, tmp_path))
    now = clock.now().replace(second=0, microsecond=0)
    with app.app_context(), transaction():
        policy.current().reclaim = Reclaim.ON
        host, owner = make_host("lab03", gpus=2, seen_at=now), make_user("liwei")
        booking = make_booking(owner, gpus_of(host), now - 2 * HOUR, now + 6 * HOUR)
        db.session.execute(sa.update(Allocation).values(attached_at=now - 2 * HOUR))
        parts = [
            Part(gpu.pci_address, now - at * MINUTE, booking.id, "liwei", 60_000, 50_000 if at > 70 else 0)
            for at in range(1, 121)
            for gpu in gpus_of(host)
        ]
        samples.deliver(host.id, "all", parts)
    yield app
    with app.app_context():
        db.engine.dispose()


def warned(core: Flask, url: str) -> str:
    """A worker's look, as if what was kept is over; the address in what the owner is told."""
    with core.app_context():
        with transaction():
            db.session.execute(sa.update(Idling).values(kept_until=clock.now()))
        for number in steps.look():
            with transaction():
                assert steps.act(number) is None
        with transaction():
            news.collect(mail=True)
        last = sa.select(Notice).options(joinedload(Notice.user)).order_by(Notice.id.desc()).limit(1)
        notice = db.session.scalars(last).one()
        text = notice_words.message(notice.user, [notice], url, lab_zone()).text
    assert "did nothing since" in text
    return text.partition(url)[2].split()[0]


def test_who_is_warned_keeps_it_as_often_as_the_rules_let(
    core: Flask, fresh_db: str, tmp_path: Path, window: Callable[..., BrowserContext]
) -> None:
    """By keyboard alone. Without JavaScript: tests.web.test_idle."""
    with portal(fresh_db, tmp_path, BERTH_TZ="Asia/Shanghai") as served:
        url = f"http://127.0.0.1:{served.port}"
        page = window(url).new_page()
        reader, keep = Reader(page, keyboard=True), page.get_by_role("button", name=re.compile("^Keep"))
        page.clock.install()
        reader.sign_in("liwei")
        reader.click("link", re.compile("2 GPUs on lab03"))
        reader.sees_heading(re.compile("2 GPUs on lab03 · In use"))
        warned(core, url)
        page.clock.run_for(60_000)  # the page that is open says so by itself, aloud too
        expect(page.get_by_role("status").filter(has_text="did nothing since")).to_be_attached()
        _keep(reader, "Keep for 60 min (2 more times)")
        expect(keep).to_have_count(0)
        page.goto("/")
        page.goto(warned(core, url))
        _keep(reader, "Keep for 60 min (1 more time)")
        page.goto("/")
        page.goto(warned(core, url))
        reader.sees(re.compile("only using the GPUs keeps it now"))
        expect(keep).to_have_count(0)
        assert not reader.foreign


def _keep(reader: Reader, button: str) -> None:
    reader.sees(re.compile("These 2 GPUs did nothing since .* the rest of the time is given back"))
    reader.click("button", button)
    reader.sees(re.compile(r"Kept: whatever its GPUs do, nothing is given back before \w+ .*\d\d:\d\d\."))
