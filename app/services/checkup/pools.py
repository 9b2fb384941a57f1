"""What is to be said of storage pools: disks that are thin can together be larger than their pool."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from app.drivers.survey import PoolUse
from app.services.checkup.finding import BAD, OK, WARN, Finding

SPARE = 0.15  # of a storage pool is left to those who are there already
FULL = 0.95
WHAT = "storage pool "  # and its name
IN_JSON = f'$[*] ? (@.what starts with "{WHAT}")'  # those of them among findings that are kept


def used(pool: PoolUse) -> float | None:
    """The part of it that is in use, 0 to 1; None where it does not say."""
    return None if pool.used is None or not pool.total else pool.used / pool.total


def judge(pools: Iterable[PoolUse]) -> Iterator[Finding]:
    """How full each is; nothing of one that does not say."""
    for pool in pools:
        if (part := used(pool)) is None:
            continue
        what = f"{WHAT}{pool.name}"
        detail = f"{int(100 * part)} % of {(pool.total or 0) / (1 << 30):.0f} GiB in use"
        if part < 1 - SPARE:
            yield Finding(OK, what, detail)
            continue
        detail += ": once it is full, all machines on it get write errors"
        fix = (
            "Delete snapshots, templates and machines that nobody needs (All machines in Berth shows who uses what),"
            f" or make it larger; see lxc storage info {pool.name}"
        )
        yield Finding(WARN if part < FULL else BAD, what, detail, fix)


def worst(findings: Iterable[Mapping[str, Any]]) -> str:
    """The level of the fullest of them by findings that were kept; "" where none is too full."""
    levels = {one["level"] for one in findings if str(one["what"]).startswith(WHAT)}
    return next((level for level in (BAD, WARN) if level in levels), "")
