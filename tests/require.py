"""Parts of a machine that a test may lack: skip and say why, or fail where BERTH_REQUIRE says that nothing may be."""

from __future__ import annotations

import os

import pytest


def required(name: str) -> bool:
    """Whether BERTH_REQUIRE (names with commas or spaces between, or `all`) insists on `name`."""
    return bool({"all", name} & set(os.environ.get("BERTH_REQUIRE", "").replace(",", " ").split()))


def need(name: str, ok: object, why: str) -> None:
    """Go on if `ok`; else skip the test, or fail it where `name` is required."""
    if ok:
        return
    if required(name):
        pytest.fail(f"BERTH_REQUIRE asks for {name}, but {why}", pytrace=False)
    pytest.skip(f"{name}: {why}")
