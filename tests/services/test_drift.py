"""The report's truth table: what a GPU is called, and what is said of each difference."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from app.drivers.base import NVIDIA_MAJOR, DeviceSeen, GpuInfo, HostSeen, InstanceSeen, Node, Tag, device_name
from app.drivers.kernel import HOST, Holder, Scan
from app.services.drift import LONGEST, MOST, news, report
from app.services.plan import Desired, Want

NOW = datetime(2026, 11, 3, 14, 0, tzinfo=UTC)
GPU, OTHER = GpuInfo("0000:01:00.0", "A6000", 0), GpuInfo("0000:02:00.0", "A6000", 1)
NAME = device_name(GPU.pci_address)
TAG = Tag(7, 70, int(NOW.timestamp()) + 3600)


def want(instance: str | None = "alice") -> Want:
    return Want(GPU, instance, TAG)


def device(
    *, tag: Tag | None = TAG, node: Node = Node.PRESENT, ours: bool = True, configured: bool = True
) -> DeviceSeen:
    return DeviceSeen(NAME, GPU.pci_address, ours, node, tag, configured)


def seen(*devices: DeviceSeen, name: str = "alice", status: str = "running", privileged: bool = False) -> HostSeen:
    return HostSeen({name: InstanceSeen(name, status, privileged, devices)})


def both(first: HostSeen, second: HostSeen) -> HostSeen:
    return HostSeen({**first.instances, **second.instances})


def desired(*wants: Want, quarantined: frozenset[str] = frozenset()) -> Desired:
    guarded = frozenset({GPU.pci_address, OTHER.pci_address})
    return Desired(1, NOW, wants, (GPU, OTHER), guarded=guarded, quarantined=quarantined)


def of(wants: list[Want], host: HostSeen, *holders: Holder, **more: Any) -> Any:
    found = report(desired(*wants), host, Scan(holders), **more)
    assert json.loads(json.dumps(found)) == found, "what is stored comes back as it was"
    return found


def holder(instance: str, gpu: GpuInfo = GPU, *, pid: int = 100, name: str = "python") -> Holder:
    return Holder(pid, 1, instance, name, frozenset({(NVIDIA_MAJOR, gpu.minor), (NVIDIA_MAJOR, 255)}))


def kinds(found: Any) -> list[tuple[str, str, str, bool]]:
    return [(item["kind"], item["instance"], item["reason"], item["ours"]) for item in found["drift"]]


OVER = Tag(6, 60, int(NOW.timestamp()))
BY_HAND = DeviceSeen("mygpu", GPU.pci_address, ours=False, node=Node.PRESENT)
FROM_PROFILE = DeviceSeen(NAME, GPU.pci_address, ours=False, node=Node.PRESENT)
ANY = DeviceSeen("gpus", "", ours=False, node=Node.UNKNOWN)
NOBODY: list[Want] = []
MISSING = [
    (seen(), "alice", "attaching", "due"),
    (seen(status="stopped"), "alice", "missing", "stopped"),
    (seen(status="frozen"), "alice", "missing", "frozen"),
    (seen(privileged=True), "alice", "missing", "privileged"),
    (seen(name="bob"), "alice", "missing", "missing"),
    (seen(), None, "missing", "no_machine"),
    (seen(device(tag=None, configured=False)), "alice", "attaching", "due"),
]
STALE = [
    (NOBODY, device(tag=OVER), "stale", "over", True),
    (NOBODY, device(), "stale", "unbooked", True),
    (NOBODY, device(tag=None), "stale", "unbooked", True),
    (NOBODY, device(node=Node.ABSENT), "stale", "unbooked", True),
    (NOBODY, device(tag=None, configured=False), "leftover", "node", True),
]
FOREIGN = [(BY_HAND, "by_hand", "foreign"), (FROM_PROFILE, "profile", "foreign"), (ANY, "any_gpu", "free")]


@pytest.mark.parametrize(("host", "instance", "code", "reason"), MISSING, ids=[row[3] for row in MISSING])
def test_wanted_and_not_there(host: HostSeen, instance: str | None, code: str, reason: str) -> None:
    found = of([want(instance)], host)
    assert found["gpus"][0]["code"] == code
    assert kinds(found) == [("missing", instance or "", reason, True)]


@pytest.mark.parametrize(("wants", "there", "code", "reason", "ours"), STALE)
def test_there_and_not_wanted(wants: list[Want], there: DeviceSeen, code: str, reason: str, ours: bool) -> None:
    found = of(wants, seen(there))
    assert found["gpus"][0]["code"] == code
    assert kinds(found) == [(code, "alice", reason, ours)]


@pytest.mark.parametrize(("there", "reason", "code"), FOREIGN, ids=[row[1] for row in FOREIGN])
def test_what_berth_did_not_make_is_only_reported(there: DeviceSeen, reason: str, code: str) -> None:
    found = of([], seen(there))
    assert kinds(found) == [("foreign", "alice", reason, False)]
    assert found["gpus"][0]["code"] == code
    assert found["gpus"][1]["code"] == "free"


def test_all_as_it_should_be() -> None:
    found = of([want()], seen(device()))
    assert kinds(found) == []
    assert found["gpus"] == [
        {
            "pci": GPU.pci_address, "minor": 0, "want": {"instance": "alice", "booking": 7}, "seen": ["alice"],
            "held_by": [], "code": "ok",
        },
        {"pci": OTHER.pci_address, "minor": 1, "want": None, "seen": [], "held_by": [], "code": "free"},
    ]  # fmt: skip


@pytest.mark.parametrize("node", [Node.UNKNOWN, Node.PRESENT, Node.COPY])
def test_a_node_that_may_be_there_counts_as_there(node: Node) -> None:
    assert of([want()], seen(device(node=node)))["gpus"][0]["code"] == "ok"


def test_a_node_that_only_lxd_believes_in() -> None:
    found = of([want()], seen(device(node=Node.ABSENT)))
    assert found["gpus"][0]["code"] == "no_node"
    assert kinds(found) == [("no_node", "alice", "lxd_only", True)]


def test_still_with_the_last_and_wanted_by_the_next() -> None:
    found = of([want("bob")], both(seen(device()), seen(name="bob")))
    assert found["gpus"][0] | {"code": "stale", "seen": ["alice"]} == found["gpus"][0]
    assert kinds(found) == [("stale", "alice", "moved", True), ("missing", "bob", "due", True)]


def test_a_device_of_ours_with_another_gpu_behind_it() -> None:
    wrong = DeviceSeen(NAME, OTHER.pci_address, ours=True, node=Node.PRESENT, tag=TAG)
    found = of([want()], seen(wrong))
    assert [line["code"] for line in found["gpus"]] == ["attaching", "stale"]
    assert kinds(found) == [("missing", "alice", "due", True), ("stale", "alice", "other_gpu", True)]


@pytest.mark.parametrize(("second", "ours"), [(device(tag=None), True), (BY_HAND, False)])
def test_one_gpu_in_two_machines(second: DeviceSeen, ours: bool) -> None:
    found = of([want()], both(seen(device()), seen(second, name="bob")))
    assert found["gpus"][0]["code"] == "doubled"
    assert found["gpus"][0]["seen"] == ["alice", "bob"]
    assert ("doubled", "alice, bob", "two_machines", ours) in kinds(found)


@pytest.mark.parametrize("ours", [True, False])
@pytest.mark.parametrize(("wants", "code"), [([], "free"), ([want("bob")], "ok")])
def test_a_copy_is_reported_and_stands_in_nobodys_way(wants: list[Want], code: str, ours: bool) -> None:
    copy = device(node=Node.COPY, tag=None, configured=False, ours=ours)
    host = both(seen(copy), seen(*([device()] if wants else []), name="bob"))
    found = of(wants, host)
    assert kinds(found) == [("leftover", "alice", "copy", False)]
    assert found["gpus"][0]["code"] == code


def test_who_holds_a_gpu_without_a_booking_is_named_and_the_gpu_is_being_taken() -> None:
    found = of([want()], seen(device()), holder("alice"), holder("bob", pid=7), holder("bob", OTHER, pid=8))
    assert [line["code"] for line in found["gpus"]] == ["evicting", "evicting"]
    assert found["gpus"][0]["held_by"] == ["alice", "bob"]
    assert [(p["instance"], p["pid"], p["gpus"]) for p in found["intruders"]] == [
        ("bob", 7, [GPU.pci_address]), ("bob", 8, [OTHER.pci_address]),
    ]  # fmt: skip


def test_one_process_with_a_gpu_of_its_own_and_anothers() -> None:
    numbers = frozenset({(NVIDIA_MAJOR, GPU.minor), (NVIDIA_MAJOR, OTHER.minor)})
    found = of([want()], seen(device()), Holder(5, 1, "alice", "python", numbers))
    assert [line["code"] for line in found["gpus"]] == ["ok", "evicting"]
    assert [p["gpus"] for p in found["intruders"]] == [[OTHER.pci_address]]


@pytest.mark.parametrize("there", [BY_HAND, ANY])
def test_plugged_in_by_hand_is_no_booking(there: DeviceSeen) -> None:
    found = of([], seen(there, name="bob"), holder("bob"))
    assert found["intruders"][0]["left_alone"] is False
    assert found["gpus"][0]["code"] == "evicting"


def test_the_hosts_own_processes_are_listed_apart() -> None:
    found = of([], seen(), holder(HOST, name="Xorg"))
    assert [(p["name"], p["pid"], p["gpus"]) for p in found["on_host"]] == [("Xorg", 100, [GPU.pci_address])]
    assert found["intruders"] == []
    assert found["gpus"][0]["code"] == "free"


def test_a_process_that_has_only_a_drm_node_is_found_by_the_hosts_list() -> None:
    there = GpuInfo(GPU.pci_address, "A6000", 0, drm=frozenset({(226, 128)}))
    render = Holder(5, 1, "bob", "vlc", frozenset({(226, 128)}))
    assert of([], seen(), render)["intruders"] == []
    assert [p["pid"] for p in of([], seen(), render, gpus=[there])["intruders"]] == [5]


def test_who_holds_one_that_is_out_of_service_is_left_alone() -> None:
    found = report(Desired(1, NOW, (), (GPU,)), seen(), Scan((holder("bob"),)))
    assert found["intruders"][0]["left_alone"] is True
    assert found["gpus"][0]["code"] == "free"


def test_quarantine_comes_before_all_else() -> None:
    host = both(seen(device()), seen(device(tag=None), name="bob"))
    found = report(desired(want(), quarantined=frozenset({GPU.pci_address})), host, None)
    assert [line["code"] for line in found["gpus"]] == ["quarantine", "free"]


def test_what_containers_chose_is_cut_and_printable() -> None:
    bad = "x\x1b[2J\u202e\x00\udc80" + "y" * 500
    bad_device = DeviceSeen(bad, GPU.pci_address, ours=False, node=Node.PRESENT)
    scan = Scan((holder(bad, name=bad),), {bad: bad})
    found = report(desired(), seen(bad_device, name=bad), scan)
    texts = [found["drift"][0]["device"], found["drift"][0]["instance"], *found["doubts"][0].values()]
    texts += [found["intruders"][0]["name"], found["gpus"][0]["seen"][0], found["gpus"][0]["held_by"][0]]
    for text in texts:
        assert text.isprintable()
        assert len(text) == LONGEST
        assert text.startswith("x?[2J???yy")


def test_no_list_grows_without_end() -> None:
    host = HostSeen({f"m{n}": seen(ANY, name=f"m{n}").instances[f"m{n}"] for n in range(MOST + 7)})
    found = of([], host, *(holder("m1", pid=pid) for pid in range(MOST + 5)))
    assert len(found["drift"]) == len(found["intruders"]) == MOST
    assert found["left_out"] == 12
    assert len(json.dumps(found)) < 100_000


def test_nothing_new_is_not_written_again() -> None:
    first = of([want()], seen(device()), holder(HOST))
    shuffled = report(desired(want()), seen(device()), Scan((holder(HOST),), processes=9))
    assert news({}, first) == first
    assert news(json.loads(json.dumps(first)), shuffled) is None


def test_without_a_look_at_processes_the_last_one_stays() -> None:
    before = of([want()], seen(device()), holder(HOST))
    blind = report(desired(want()), seen(device()), None)
    assert blind["scanned"] is False
    assert news(before, blind) is None
    gone = news(before, report(desired(), seen(), None))
    assert gone is not None
    assert gone["on_host"] == before["on_host"]
    assert gone["gpus"][0]["code"] == "free"
    assert news({}, blind) == blind
