"""What `berth doctor` says of the agent's service."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.drivers.system import Done
from app.services.checkup import BAD, OK, WARN
from app.services.hostinit import units, watching
from app.services.hostinit.services import AGENT_UNIT, ENVIRONMENT
from tests.services.hostinit.paper import PaperSystem

UNIT = units.AGENT.format(name="lab01", berth="/opt/berth", environment=ENVIRONMENT)
RUNS = "Type=notify\nWatchdogUSec=3min\nActiveState=active\n"


@pytest.mark.parametrize(
    ("unit", "shown", "level", "said"),
    [
        (UNIT, RUNS, OK, "after 3min of silence"),
        (UNIT, RUNS.replace("active", "failed"), BAD, "is failed"),
        (UNIT, RUNS.replace("3min", "0"), WARN, "nobody starts it anew"),
        (UNIT, RUNS.replace("notify", "simple"), WARN, "nobody starts it anew"),
        (UNIT.replace("WatchdogSec=180\n", ""), RUNS, WARN, "not as this version"),
        (UNIT, "", WARN, "does not say"),
    ],
)
def test_a_service_as_it_should_be_or_not(tmp_path: Path, unit: str, shown: str, level: str, said: str) -> None:
    system = PaperSystem(tmp_path)
    system.write(AGENT_UNIT, unit)
    system._systemctl = lambda _words: Done(0, shown or "-")  # type: ignore[method-assign]
    [found] = watching.judge(system, "lab01")
    assert (found.level, found.what) == (level, "service")
    assert said in found.detail
    assert bool(found.fix) == (level != OK)


def test_no_service_here_or_another_hosts(tmp_path: Path) -> None:
    system = PaperSystem(tmp_path)
    assert list(watching.judge(system, "lab01")) == []
    system.write(AGENT_UNIT, UNIT)
    assert list(watching.judge(system, "lab02")) == []
