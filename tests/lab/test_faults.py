"""A fault run on a real LXD: whatever happens, no GPU is had by two or kept, none is lost, and the books add up.

BERTH_FAULTS_SEED and BERTH_FAULTS_STEPS make another run of it; BERTH_FAULTS_SHRINK=MINUTES looks for the shortest part
of a run that failed. By hand: `python -m tests.lab.faults --seed N --steps M`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.lab import faults
from tests.lab.fault_judge import Verdict
from tests.lab.fault_moves import KILLED, VERBS, Step, chosen
from tests.lab.faults import GPUS, STEPS, FaultLab, Result, carry_out, shortest
from tests.lab.lab import Lab
from tests.runtime.running import ROOT

SEED = int(os.environ.get("BERTH_FAULTS_SEED", "20261124"))
NUMBER = int(os.environ.get("BERTH_FAULTS_STEPS", STEPS))
HIDDEN = NUMBER // 3  # steps of the run with LXD's device directory hidden: only the fence's way to its nodes differs
SHRINK = float(os.environ.get("BERTH_FAULTS_SHRINK", "0"))


@pytest.fixture(scope="module")
def host(lab_directory: Path, request: pytest.FixtureRequest) -> Iterator[FaultLab]:
    """LXD's device directory is in sight, or hidden as in LXD from a snap."""
    hidden = getattr(request, "param", False)
    with FaultLab(lab_directory / f"faults-{hidden}", gpus=GPUS, readable=True, snap=hidden) as made:
        yield made


@pytest.mark.lab
@pytest.mark.holds
@pytest.mark.apart
@pytest.mark.parametrize("host", [False, True], ids=["in-sight", "snap"], indirect=True)
def test_whatever_happens(host: FaultLab, capsys: pytest.CaptureFixture[str]) -> None:
    result = carry_out(SEED, chosen(SEED, HIDDEN if host.snap else NUMBER), host)
    with capsys.disabled():
        print(f"\n  {result.summary()}")
    if result.complaints and SHRINK:
        result = shortest(result, host, SHRINK)
    assert result.complaints == [], result.report()


def test_a_seed_is_one_run() -> None:
    steps = chosen(SEED, STEPS)
    assert steps == chosen(SEED, STEPS)
    assert steps[:50] == chosen(SEED, 50)
    assert steps != chosen(SEED + 1, STEPS)
    assert {step.verb for step in steps} == set(VERBS)
    assert {KILLED[step.numbers[0]] for step in steps if step.verb == "kill"} == set(KILLED)


def test_the_shortest_part_that_fails_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def made_up(seed: int, steps: Sequence[Step], _host: Lab) -> Result:
        verbs = [step.verb for step in steps]
        broken = ["it broke"] * ("copy" in verbs and "kill" in verbs[verbs.index("copy") :])
        return Result(seed, steps, Verdict(), broken, [], 0.0)

    monkeypatch.setattr(faults, "carry_out", made_up)
    nowhere = Lab(tmp_path)
    found = faults.shortest(made_up(SEED, chosen(SEED, STEPS), nowhere), nowhere, 1)
    assert [step.verb for step in found.steps] == ["copy", "kill"]
    assert faults.shortest(made_up(SEED, chosen(SEED, STEPS), nowhere), nowhere, 0).steps == chosen(SEED, STEPS)


# An agent that fences nothing and calls every GPU free without a look.
BROKEN = """\
import sys
if "agent" in sys.orig_argv:
    from app.drivers.holders.host import HostKernel
    from workers.evictor import Evictor
    from workers.verdicts import State, Verdict
    HostKernel.fence = lambda *_: {}
    HostKernel.shut = lambda *_: None
    Evictor.clear = lambda *_: Verdict(State.FREE)
"""
# One adds a GPU by hand that somebody else has; one keeps a GPU open past the end, and somebody else comes next.
CAUGHT = [
    Step("book", (0, 0, 1, 14), 0.0),
    Step("relay", (1, 2, 1, 1, 9), 0.0),
    Step("hold", (1, 2), 2.0),
    Step("wait", (), 1.0),
    Step("add_foreign", (3, 0), 1.0),
    Step("wait", (), 11.0),
]


@pytest.mark.lab
@pytest.mark.holds
@pytest.mark.apart
def test_an_agent_that_does_not_do_it_is_caught(host: FaultLab, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(BROKEN)
    result = carry_out(0, CAUGHT, host, PYTHONPATH=f"{ROOT}:{tmp_path}")
    told = [text for text in result.complaints if "both had GPU" in text]
    assert any(f"GPU {host.minors[0]} " in text for text in told), result.report()
    assert any(f"GPU {host.minors[1]} " in text for text in told), result.report()
