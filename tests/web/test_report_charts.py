"""The geometry of a report's drawings; what they say is in test_reports."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from app.services.reports.numbers import Numbers
from app.web.reports import charts


@pytest.mark.parametrize("steps", [1, 7, 19, 28, 29, 30, 31, 366])
def test_no_name_under_the_bars_is_cut_at_the_edge_or_lies_on_its_neighbour(steps: int) -> None:
    drawn = charts.bars({date(2026, 1, 1) + timedelta(days=number): Numbers() for number in range(steps)})
    ends = {"middle": charts.HALF, "end": 0}
    right = [x + ends[anchor] for x, anchor, _first in drawn.labels]
    assert right[-1] <= charts.WIDTH
    left = [end - 2 * charts.HALF for end in right]
    assert all(before <= after for before, after in zip(right, left[1:], strict=False))
