"""The whole way of a series: repeated, shown, one taken meanwhile, those that fit booked, the later ones moved, given
back."""

from __future__ import annotations

import re

import pytest

from tests.browser.demo import Demo
from tests.browser.reader import Reader

WEEK = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


@pytest.mark.parametrize("kind", ["desktop", "phone-nojs"])
def test_a_series_from_its_wish_to_its_end(reader: Reader, demo: Demo) -> None:
    user, other = demo.person(machine_on="sim1"), demo.person("Chen Yu", hours=400)
    reader.sign_in(user)
    reader.nav("Book")
    first, last = (demo.at(day, 12).date().isoformat() for day in (2, 6))
    for label, value in {"Start date": first, "Start time": "20:00", "End time": "23:00"}.items():
        reader.fill(label, value)
    reader.press_on(reader.page.get_by_text("Repeat", exact=True))
    for day in WEEK:
        reader.page.get_by_label(day, exact=True).check()
    reader.fill("Last day", last)
    reader.click("button", "Check")
    reader.sees("All 5 fit")
    reader.sees(re.compile("Costs 15 GPU-hours; 85 of 100 left after."))
    for host in ("sim1", "sim2"):
        demo.book(other, hours=1, start=demo.at(3, 21), host=host, count=4)
    reader.click("button", "Book all 5")
    reader.sees("Not booked")
    reader.sees(re.compile("1 of 5 bookings is not possible."))
    assert reader.page.get_by_label("Last day").input_value() == last
    reader.click("button", "Book the 4 that fit")
    reader.sees_heading(re.compile("Series: every day 20:00–23:00 until"))
    reader.sees("4 bookings made.")
    reader.press_on(reader.page.get_by_role("row").filter(has_text="Booked").nth(1).get_by_role("link"))
    reader.sees(re.compile("2 of 4: every day 20:00–23:00 until"))
    reader.click("link", "Change hours of this and later ones…")
    reader.fill("Start time", "19:00")
    reader.click("button", "Check")
    reader.sees("All 3 fit")
    reader.sees("Costs 3 GPU-hours more.")
    reader.click("button", "Change all 3")
    reader.sees_heading(re.compile("Series: every day 19:00–23:00 until"))
    reader.click("link", "Cancel 3 bookings…")
    reader.sees_heading("Cancel 3 bookings?")
    reader.sees("12 GPU-hours are given back.")
    reader.click("button", "Cancel 3 bookings")
    reader.sees("3 bookings cancelled: 12 GPU-hours given back.")
