"""The waiting list: from a refusal to the booking, while somebody else gives back."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from app.extensions import db, transaction
from app.models import Gpu, Host
from app.services import accounts, changes
from tests.browser.demo import Demo
from tests.browser.reader import Reader
from tests.runtime.running import wait_for


@pytest.mark.parametrize("kind", ["desktop", "phone-nojs"])
def test_who_waits_gets_what_somebody_cancels(reader: Reader, demo: Demo) -> None:
    with demo.app.app_context():
        all_of_it = len(db.session.scalars(db.select(Gpu.id).join(Host).where(Host.name == "sim1")).all())
    other, start = demo.person("Chen Yu", machine_on="sim1"), demo.at(1, 20)
    booking = demo.book(other, hours=2, count=all_of_it, start=start, host="sim1")
    name = demo.person("Li Wei", machine_on="sim1")
    reader.sign_in(name)
    page, day = reader.page, start.astimezone(demo.berth_zone).date().isoformat()
    page.goto(f"/bookings/new?check=1&count=1&host=sim1&start_date={day}&start_time=20:00&end_time=22:00")
    reader.sees("Not booked")
    reader.click("link", "Join the waiting list…")
    reader.fill("Purpose", "Ablation")
    reader.click("button", "Join the waiting list")
    reader.sees("You are on the waiting list.")
    reader.sees("Number 1 in line")
    if not reader.phone:
        page.goto(f"/calendar?day={day}&open=sim1")
        expect(page.get_by_role("link", name=re.compile("You wait for 1 GPU"))).to_be_visible()
    with demo.app.app_context(), transaction():
        changes.cancel(accounts.get(other), booking)  # as `berth` would: the postman finds it

    def granted() -> bool:
        page.goto("/waits")
        return page.get_by_role("link", name="1 GPU on sim1").is_visible()

    wait_for(granted, 60, "the place to become a booking")
    reader.click("link", "1 GPU on sim1")
    reader.sees_heading(re.compile("1 GPU on sim1 · Booked"))
    reader.sees("Ablation")
