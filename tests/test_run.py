"""The suites of `python -m tests.run`: together they have every test, and those side by side leave each other alone."""

from __future__ import annotations

from pathlib import Path

from tests.lab import clinging, faults
from tests.lab.registry import READABLE
from tests.lab.test_drift import HOSTS
from tests.run import LABS, ROOT, SUITES, abreast


def _marked(mark: str) -> set[str]:
    """The directories of the tests that are marked so."""
    found = (path for path in Path(ROOT, "tests").rglob("*.py") if f"pytest.mark.{mark}" in path.read_text())
    return {str(path.relative_to(ROOT).parent) for path in found} - {"tests"}  # this file speaks of it


def test_every_test_with_a_lab_is_where_the_suites_look_for_it() -> None:
    assert _marked("lab") == set(LABS)
    assert _marked("holds") <= set(LABS)
    assert _marked("browser") == {SUITES["browser"][-1]}
    assert all(SUITES[name][-len(LABS) :] == LABS for name in ("lab", "holds", "apart", "timed"))


def test_what_is_held_in_suites_side_by_side_are_different_devices() -> None:
    drift = [clinging.DEVICES[first + gpu] for first, gpus in HOSTS.values() for gpu in range(gpus)]
    assert len(set(drift)) == len(drift)
    assert not {*drift, *faults.DEVICES} & set(READABLE)


def test_suites_run_in_their_order_or_beside_the_one_that_they_go_with() -> None:
    assert abreast(list(SUITES)) == [["quick", "runtime"], ["lab"], ["holds", "apart"], ["timed"], ["browser"]]
    assert abreast(["apart", "browser"]) == [["apart"], ["browser"]]
    assert abreast(["holds", "apart"]) == [["holds", "apart"]]
