"""Machines that fight the agent: it may cost them their GPU or themselves, never the host or anybody else anything."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from app.extensions import transaction
from app.services import policy
from tests.lab import attack
from tests.lab.fighting import FIGHTS, FUSE, Canaries, Fight, Ring, Seen, furnish
from tests.lab.lab import Lab
from tests.lab.scene import Scene, scene
from tests.require import need

pytestmark = [pytest.mark.lab, pytest.mark.timed]

TICK = 2
LATE = 1.0  # seconds that others may be late for their GPU, over a tick
GROWTH = 60_000  # kilobytes that the agent may grow by, with all it keeps ready for later
EITHER = frozenset({"detached", "quarantine"})
BATCHES = {
    "disguised": [
        Fight("impostors"),
        Fight("impostors-before", ends=frozenset({"detached", "never attached"}), before=True),
        Fight("names"),
        Fight("refrozen"),
        Fight("respawn"),
        Fight("flood"),
        Fight("hung_file", options=FUSE),
    ],
    "too-much": [Fight("crowd", ends=EITHER, stopped=True)],
    "gone": [
        Fight("impostors-hidden"),
        Fight("hung_dev", ends=frozenset({"quarantine"}), options=FUSE, true="still"),
        Fight("keeps-killed", meddle=(("stop", "--force", "{}"),)),
        Fight("keeps-deleted", meddle=(("delete", "--force", "{}"),)),
        # LXD may be at its start for longer than a GPU may take to be free: for that long nobody gets it.
        Fight("keeps-renamed", ends=EITHER, true="busy running",
              meddle=(("stop", "--force", "{}"), ("rename", "{}", "{}-x"), ("start", "{}-x"),
                      ("delete", "--force", "{}-x"))),
    ],
}  # fmt: skip
# Where LXD hides its nodes, as from a snap, the way to them is another one; all else is the same there.
NODES = {"impostors", "impostors-before", "impostors-hidden", "hung_file", "hung_dev"}
BATCHES["nodes"] = [fight for batch in BATCHES.values() for fight in batch if fight.name in NODES]
NO_FIGHT = {"fight", "fuse"}


@pytest.fixture(scope="module")
def ring_of(lab_directory: Path) -> Iterator[Callable[[bool], Ring]]:
    """A host with LXD's device directory in sight, or with it hidden: one at a time."""
    need("lab", Path("/dev/fuse").exists(), "this kernel has no FUSE")
    made: dict[bool, Ring] = {}
    with ExitStack() as stack:

        def get(hidden: bool) -> Ring:
            if hidden not in made:
                stack.close()
                made.clear()
                made[hidden] = stack.enter_context(ring(lab_directory, hidden=hidden))
            return made[hidden]

        yield get


@contextmanager
def ring(directory: Path, *, hidden: bool) -> Iterator[Ring]:
    folder = directory / f"fights-{hidden}"
    with Lab(directory / f"ring-{hidden}", gpus=16, snap=hidden) as host:
        furnish(host, folder, attack.furnish)
        canaries = Canaries(folder)
        try:
            with scene(host, BERTH_TICK=str(TICK)) as made:
                rules(made, grace_seconds=1)
                yield Ring(made, host, canaries)
        finally:
            canaries.end()
    shutil.rmtree(folder)


def rules(made: Scene, **values: object) -> None:
    with made.app.app_context(), transaction():
        for name, value in values.items():
            setattr(policy.current(), name, value)


def test_every_fight_there_is_is_fought() -> None:
    named = {fight.script for batch in BATCHES.values() for fight in batch}
    assert {path.stem for path in FIGHTS.glob("*.py")} == named | NO_FIGHT


@pytest.mark.parametrize(
    ("hidden", "name"),
    [*((False, name) for name in BATCHES if name != "nodes"), (True, "nodes")],
    ids=lambda value: value if isinstance(value, str) else ("in-sight", "snap")[value],
)
def test_a_batch(ring_of: Callable[[bool], Ring], hidden: bool, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    fights, here = BATCHES[name], ring_of(hidden)
    rules(here.scene, force_stop=any(fight.stopped for fight in fights))
    seen = here.fight(fights)
    with capsys.disabled():
        print(f"\n  {name}: {seen}")
    _judge(fights, seen)


def _judge(fights: list[Fight], seen: Seen) -> None:
    assert seen.canaries == []
    assert {fight.name: seen.ends[fight.name] for fight in fights if seen.ends[fight.name] not in fight.ends} == {}
    assert all(fight.true in seen.reasons.get(fight.name, fight.true) for fight in fights)
    assert seen.stopped == {fight.name for fight in fights if fight.stopped}
    assert max(seen.late) <= TICK + LATE
    assert seen.before is not None
    assert seen.after is not None
    assert seen.after.kilobytes - seen.before.kilobytes <= GROWTH
    assert seen.after.children <= seen.before.children + 1
    assert seen.after.threads <= seen.before.threads + 16
    assert seen.after.descriptors <= seen.before.descriptors + 16 * 4  # each thread talks to LXD by itself
