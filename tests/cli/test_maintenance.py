"""Maintenance planned, looked at and lifted at the command line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from tests.cli.conftest import Berth, book_now


def test_gpus_are_kept_free_and_given_back(lab: Berth, engine: sa.Engine) -> None:
    book_now(engine)
    noon = (datetime.now(UTC) + timedelta(days=9)).replace(hour=12, minute=0, second=0, microsecond=0, tzinfo=None)
    asked = ("maintenance", "add", "ws1", "--to", noon.isoformat(), "--reason", "new fans")
    tried = lab(*asked, "--dry-run", "--json")
    assert (tried.status, [(one["owner"], one["becomes"]) for one in tried.json()]) == (0, [("liwei", "shortened")])
    assert lab("maintenance", "list", "ws1").out == "No maintenance is planned.\n"
    assert lab(*asked).out.splitlines()[-1] == "Planned: 4 GPUs of ws1 are kept free."
    [found] = lab("maintenance", "list", "ws1", "--json").json()
    assert (found["gpus"], found["reason"], found["by"]) == (["0", "1", "2", "3"], "new fans", "cli")
    assert found["ends_at"] == f"{noon - timedelta(hours=8):%FT%T}+00:00"  # noon is meant in the lab
    again = lab(*asked)
    assert (again.status, "in maintenance then already" in again.err) == (1, True)
    assert lab("maintenance", "lift", str(found["id"])).out == f"Maintenance {found['id']} of ws1 is over.\n"
    assert lab("maintenance", "list", "ws1", "--json").json() == []
    assert lab("maintenance", "lift", str(found["id"])).status == 1
    for wrong, said in {"0": "1<=x", "99999999999999999999": "x<=2147483647"}.items():
        refused = lab("maintenance", "lift", wrong)
        assert (refused.status, said in refused.err) == (2, True), refused.err
    assert "nor an ISO-8601 time" in lab("maintenance", "add", "ws1", "--to", "soon").err


def test_a_gpu_that_the_host_has_not_is_refused(lab: Berth) -> None:
    end = (datetime.now(UTC) + timedelta(days=2)).isoformat()
    asked = ("maintenance", "add", "ws1", "--to", end, "--gpu", "3")
    for more in ((), ("--dry-run",)):
        refused = lab(*asked, "--gpu", "4", *more)
        assert (refused.status, refused.out) == (1, "")
        assert refused.err == "ws1 has no GPU 4. It has 0, 1, 2, 3.\n"
    assert lab("maintenance", "list", "ws1", "--json").json() == []
    assert lab(*asked).out.splitlines()[-1] == "Planned: 1 GPUs of ws1 are kept free."
