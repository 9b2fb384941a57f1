"""Which host a new machine goes to, and what is said when none has room."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from app import clock
from app.errors import InvalidInput, RuleRefused
from app.models import GpuState, Host
from app.services import placing
from app.services.placing import GIB, Room, choose
from tests.factories import gpus_of, make_booking, make_host, make_instance, make_template, make_user

SILENCE = timedelta(minutes=1)


def room(host: str, **values: Any) -> Room:
    usual = {"gpus": 4, "gpus_free": 4, "memory": 128 * GIB, "disk": 1000 * GIB, "driver": "zfs"}
    return Room(host, **(usual | values))


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ({"machines": 3}, {"machines": 4}),
        ({"machines": 7, "gpus": 8, "gpus_free": 8}, {"machines": 4}),  # fewer for each GPU
        ({}, {"gpus_free": 2}),
        ({"promised": 16 * GIB}, {"promised": 64 * GIB}),
        ({"disk_used": 100 * GIB}, {"disk_used": 500 * GIB}),
        ({"machines": 40}, {"gpus": 0, "gpus_free": 0}),  # a host without GPUs is the last
        ({"machines": 40}, {"memory": None, "disk": None}),  # and so is one of which nothing is known
        ({"machines": 40}, {"answers": False}),
        ({"machines": 40}, {"memory_used": 120 * GIB}),
        ({"machines": 40}, {"disk_used": 840 * GIB}),  # a part of the pool is left alone
    ],
)
def test_the_host_with_more_room_is_chosen(better: dict[str, Any], worse: dict[str, Any]) -> None:
    for names in (("a", "b"), ("b", "a")):
        found = choose([room(names[0], **better), room(names[1], **worse)], 16 * GIB, 50 * GIB)
        assert found is not None
        assert found.host == names[0]


@pytest.mark.parametrize(
    ("values", "lacks"),
    [
        ({"memory_used": 112 * GIB}, ""),
        ({"memory_used": 112 * GIB + 1}, "memory"),
        ({"disk_used": 800 * GIB}, ""),
        ({"disk_used": 800 * GIB + 1}, "disk"),
        ({"answers": False}, "answer"),
        ({"memory": None, "disk": None}, ""),
        ({"promised": 1000 * GIB}, ""),  # people use a part of it
    ],
)
def test_what_keeps_a_machine_from_a_host(values: dict[str, Any], lacks: str) -> None:
    assert room("a", **values).lacks(16 * GIB, 50 * GIB) == lacks
    assert (choose([room("a", **values)], 16 * GIB, 50 * GIB) is None) == bool(lacks)


def test_equal_hosts_are_taken_by_name_and_no_host_is_none() -> None:
    assert choose([room("b"), room("a")], GIB, GIB).host == "a"
    assert choose([], GIB, GIB) is None


def surveyed(name: str, *, memory_used: int = 8, disk_used: int = 100, driver: str = "zfs", **values: Any) -> Host:
    pools = [
        {"name": "old", "driver": "dir", "used": 0, "total": 1},
        {"name": "pool", "driver": driver, "used": disk_used * GIB, "total": 1000 * GIB},
    ]
    survey = {"memory": 128 * GIB, "memory_used": memory_used * GIB, "pools": pools, "pool": "pool"}
    return make_host(name, survey=survey, **({"seen_at": clock.now()} | values))


@pytest.mark.usefixtures("app")
def test_a_hosts_room_is_what_the_agent_saw_and_what_is_booked() -> None:
    host, other = surveyed("lab01", gpus=2), make_host("lab02")
    user = make_user()
    make_instance(user, host, memory_mib=8192)
    gone = make_instance(user, host, "gone", memory_mib=8192)
    gone.deleted_at = clock.now()
    now = clock.now()
    make_booking(user, gpus_of(host)[:1], now - timedelta(hours=1), now + timedelta(hours=1))
    gpus_of(other)[0].state = GpuState.MAINTENANCE
    found = placing.rooms(SILENCE)
    seen = found[host.id]
    assert (seen.answers, seen.machines, seen.gpus, seen.gpus_free) == (True, 1, 2, 1)
    assert (seen.memory_free, seen.promised, seen.driver) == (120 * GIB, 8 * GIB, "zfs")
    assert seen.disk_free == 750 * GIB
    assert (found[other.id].answers, found[other.id].gpus, found[other.id].memory_free) == (False, 3, None)


@pytest.mark.usefixtures("app")
def test_a_machine_goes_to_the_best_host_that_offers_its_template_to_the_person() -> None:
    full, free, without, hers = (surveyed(f"lab0{n}", memory_used=used) for n, used in enumerate((120, 60, 1, 2), 1))
    liwei, mei = make_user("liwei"), make_user("mei")
    for host in (full, free):
        make_template(host, "base")
    make_template(without, "desktop")
    make_template(hers, "base", for_everyone=False, users=[mei])
    make_instance(mei, free)
    assert place("base", liwei).host.name == "lab02"
    assert place("base", mei).host.name == "lab04"
    hers.enabled = False
    assert place("base", mei).host.name == "lab02"
    with pytest.raises(InvalidInput, match="No host offers the template nothing"):
        place("nothing", liwei)


@pytest.mark.usefixtures("app")
def test_where_nobody_has_room_each_host_says_why() -> None:
    for name, values in {
        "lab01": {"memory_used": 121}, "lab02": {"disk_used": 830}, "lab03": {"seen_at": None},
        "lab04": {"trouble": "LXD is away"},
    }.items():  # fmt: skip
        make_template(surveyed(name, **values), "base")
    with pytest.raises(RuleRefused) as caught:
        place("base", None)
    assert caught.value.brief == "No host has room for a machine of this size from base."
    assert caught.value.hint == (
        "lab01 has 7 GiB of memory free. lab02 has 20 GiB of disk free. lab03 does not answer. lab04 does not answer."
    )


def place(name, owner):  # type: ignore[no-untyped-def]
    return placing.place(name, owner, SILENCE, memory_gib=16, disk_gib=50)
