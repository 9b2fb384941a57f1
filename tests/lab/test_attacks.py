"""Root in a container tries to keep a GPU when its booking ends: what works on LXD alone, and nothing does here."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.extensions import transaction
from app.services import policy
from tests.lab.attack import SCRIPTS, Attack, Outcome, furnish
from tests.lab.attack_runs import Outcomes, on_berth, on_plain_lxd
from tests.lab.lab import Lab
from tests.lab.scene import scene

pytestmark = [pytest.mark.lab, pytest.mark.holds]

ATTACKS = [
    Attack("bind_mount"),
    Attack("busy_loop"),
    Attack("clone_files"),
    Attack("copies", plain=False),
    Attack("covered_dev"),
    Attack("deaf"),
    Attack("descriptor"),
    Attack("fd_store", stuck=True, alone=True, systemd=True),
    Attack("fork_storm", alone=True),
    Attack("frozen"),
    Attack("hidden_ring", refused=True),
    Attack("in_backlog", ending=1),
    Attack("in_flight"),
    Attack("io_uring", refused=True),
    Attack("jail"),
    Attack("leaderless"),
    Attack("mapping", ending=1),
    Attack("moved_node"),
    Attack("namespaces"),
    Attack("nested_flight"),
    Attack("o_path", ending=1),
    Attack("odd_name", ending=1),
    Attack("open_tree", ending=1),
    Attack("own_group"),
    Attack("own_table", ending=1),
    Attack("passed_on", receiver=True),
    Attack("pinned_namespace"),
    Attack("stopped", ending=1),
]
# What keeps, copies, moves or covers the node that LXD made, and one that just keeps it open: where LXD hides its
# nodes, as from a snap, the way to them is another one. All else is the same there.
NODES = {"bind_mount", "copies", "covered_dev", "descriptor", "jail", "moved_node", "namespaces", "open_tree",
         "pinned_namespace"}  # fmt: skip
NO_ATTACK = {"bystander", "groups", "kit", "ring"}
each = pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)


def _in(arena: Lab) -> list[Attack]:
    return [attack for attack in ATTACKS if not arena.snap or attack.name in NODES]


@pytest.fixture(scope="module", params=[False, True], ids=["in-sight", "snap"])
def arena(lab_directory: Path, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A host with two GPUs for each attack. LXD's device directory is in sight, or hidden as in LXD from a snap."""
    folder = lab_directory / f"attacks-{request.param}"
    with Lab(
        lab_directory / f"arena-{request.param}", gpus=2 * len(ATTACKS), readable=True, snap=request.param
    ) as host:
        furnish(host, folder)
        yield host
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def plain(arena: Lab) -> Outcomes:
    return on_plain_lxd(arena, ATTACKS)


@pytest.fixture(scope="module")
def berth(arena: Lab, request: pytest.FixtureRequest) -> Iterator[Outcomes]:
    if not arena.snap:  # never while a Berth is there that would end them
        request.getfixturevalue("plain")
    with scene(arena, BERTH_TICK="2") as made:
        with made.app.app_context(), transaction():
            policy.current().grace_seconds = 1
        try:
            yield on_berth(made, arena, _in(arena))
        finally:
            made.machines.clear()  # the lab takes them along


def test_every_attack_there_is_is_carried_out() -> None:
    assert sorted(path.stem for path in SCRIPTS.glob("*.py")) == sorted({attack.name for attack in ATTACKS} | NO_ATTACK)


@each
@pytest.mark.parametrize("arena", [False], ids=["in-sight"], indirect=True)  # they work alike where nobody looks
def test_on_lxd_alone(plain: Outcomes, attack: Attack) -> None:
    outcome = plain[attack.name]
    assert outcome.trouble == ""
    assert bool(outcome.kept) == attack.plain, outcome
    assert outcome.harmed == {}


@each
@pytest.mark.parametrize("arena", [False], ids=["in-sight"], indirect=True)
def test_on_berth(berth: Outcomes, attack: Attack) -> None:
    _judge(berth[attack.name], attack)


@pytest.mark.parametrize("attack", [one for one in ATTACKS if one.name in NODES], ids=lambda attack: attack.name)
@pytest.mark.parametrize("arena", [True], ids=["snap"], indirect=True)
def test_on_berth_where_nodes_are_hidden(berth: Outcomes, attack: Attack) -> None:
    _judge(berth[attack.name], attack)


def _judge(outcome: Outcome, attack: Attack) -> None:
    assert ("Function not implemented" in outcome.trouble) if attack.refused else (outcome.trouble == ""), (
        f"{outcome.trouble}\n{outcome}"
    )
    assert outcome.records == {"quarantine" if attack.stuck else "detached"}, outcome
    if not attack.stuck:
        assert "still" in (outcome.why or "still"), outcome  # nobody got anywhere with it; never that somebody has it
        assert (outcome.kept, outcome.grips) == ({}, set()), outcome
    assert outcome.harmed == {}
