from __future__ import annotations

import pytest

from tests.require import need

Skipped, Failed = pytest.skip.Exception, pytest.fail.Exception


@pytest.mark.parametrize(
    ("wish", "outcome"),
    [("", Skipped), ("browser", Skipped), ("slab", Skipped), ("all", Failed), ("browser, lab", Failed)],
)
def test_what_is_lacking_is_skipped_or_where_required_fails(
    monkeypatch: pytest.MonkeyPatch, wish: str, outcome: type[BaseException]
) -> None:
    monkeypatch.setenv("BERTH_REQUIRE", wish)
    with pytest.raises(outcome, match="no root"):
        need("lab", ok=False, why="no root")


def test_what_is_there_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BERTH_REQUIRE", "all")
    need("lab", ok=True, why="never said")
