"""The pages of a lab that is empty, and of one that is full of long names: as well to look at as those of any other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext

from tests import postgres
from tests.browser import extremes
from tests.browser.extremes import ADMIN, NEWCOMER, STUDENT, Extreme
from tests.browser.looks import troubles
from tests.browser.reader import Reader


@pytest.fixture(scope="module")
def lab(
    request: pytest.FixtureRequest, admin_url: str, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Extreme]:
    kind: Callable[[str, Path], Iterator[Extreme]] = request.param
    with postgres.database(admin_url, template) as url, kind(url, tmp_path_factory.mktemp("berth")) as made:
        yield made


@pytest.mark.parametrize(
    ("lab", "who"),
    [(extremes.empty, ADMIN), (extremes.empty, NEWCOMER), (extremes.full, ADMIN), (extremes.full, STUDENT)],
    indirect=["lab"],
    ids=["empty-admin", "empty-newcomer", "full-admin", "full-student"],
)
def test_axe_finds_nothing(lab: Extreme, window: Callable[..., BrowserContext], who: str) -> None:
    reader = Reader(window(lab.url).new_page()).sign_in(who)
    samples = [sample for sample in lab.samples if sample.who == who]
    assert len(samples) >= 15
    found = troubles(reader, samples)
    assert not found, "\n".join(found)
