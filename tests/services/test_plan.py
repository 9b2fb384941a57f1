"""The plan's truth table: one test for each cell of wanted × seen."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from app.drivers.base import DeviceSeen, GpuInfo, HostSeen, InstanceSeen, Node, Tag, device_name
from app.services.plan import Attach, Desired, Detach, Plan, Trouble, Wait, Want, from_tags, next_end, plan

NOW = datetime(2026, 11, 3, 14, 0, tzinfo=UTC)
GPU = GpuInfo("0000:01:00.0", "A6000", 0)
OTHER = GpuInfo("0000:02:00.0", "A6000", 1)
TAG = Tag(7, 70, int(NOW.timestamp()) + 3600)
NAME = device_name(GPU.pci_address)


def want(instance: str | None = "alice", gpu: GpuInfo = GPU, tag: Tag = TAG) -> Want:
    return Want(gpu, instance, tag)


def device(gpu: GpuInfo = GPU, *, tag: Tag | None = TAG, node: Node = Node.PRESENT, **values: object) -> DeviceSeen:
    return DeviceSeen(
        device_name(gpu.pci_address), gpu.pci_address, **{"ours": True, "node": node, "tag": tag, **values}
    )  # type: ignore[arg-type]


def seen(*devices: DeviceSeen, name: str = "alice", status: str = "running", privileged: bool = False) -> HostSeen:
    return HostSeen({name: InstanceSeen(name, status, privileged, devices)})


def both(first: HostSeen, second: HostSeen) -> HostSeen:
    return HostSeen({**first.instances, **second.instances})


def planned(wants: list[Want], host: HostSeen) -> Plan:
    return plan(Desired(1, NOW, tuple(wants)), host)


def test_nothing_wanted_and_nothing_there_is_quiet() -> None:
    assert planned([], seen()) == Plan()


def test_wanted_and_absent_is_attached() -> None:
    assert planned([want()], seen()).attaches == (Attach(want()),)


def test_wanted_and_there_is_left_alone() -> None:
    result = planned([want()], seen(device()))
    assert result.quiet
    assert result.attached == (want(),)


def test_not_wanted_and_there_is_detached() -> None:
    assert planned([], seen(device())).detaches == (Detach("alice", NAME, GPU.pci_address, TAG),)


def test_it_moves_from_one_to_the_next() -> None:
    host = both(seen(device()), seen(name="bob"))
    result = planned([want("bob", tag=Tag(8, 80, 1))], host)
    assert result.detaches == (Detach("alice", NAME, GPU.pci_address, TAG),)
    assert [item.want.instance for item in result.attaches] == ["bob"]


def test_back_to_back_for_the_same_machine_keeps_it_in_and_renews_the_tag() -> None:
    following = want(tag=Tag(8, 80, TAG.ends_at + 3600))
    result = planned([following], seen(device()))
    assert result.detaches == ()
    assert result.attaches == (Attach(following),)


def test_a_node_that_only_lxd_believes_in_is_taken_out_and_in_again() -> None:
    result = planned([want()], seen(device(node=Node.ABSENT)))
    assert [item.device for item in result.detaches] == [NAME]
    assert result.attaches == (Attach(want()),)


def test_a_node_that_cannot_be_looked_at_counts_as_lxd_says() -> None:
    assert planned([want()], seen(device(node=Node.UNKNOWN))).quiet


def test_a_node_that_was_left_behind_is_taken_away() -> None:
    left = device(tag=None, configured=False)
    assert [item.device for item in planned([], seen(left)).detaches] == [NAME]


@pytest.mark.parametrize(
    ("host", "instance", "trouble"),
    [
        (seen(), None, Trouble.NO_MACHINE),
        (seen(name="bob"), "alice", Trouble.MISSING),
        (seen(status="stopped"), "alice", Trouble.STOPPED),
        (seen(status="frozen"), "alice", Trouble.FROZEN),
        (seen(privileged=True), "alice", Trouble.PRIVILEGED),
    ],
    ids=lambda value: str(value) if isinstance(value, Trouble) else "",
)
def test_what_stands_in_the_way_is_waited_for(host: HostSeen, instance: str | None, trouble: Trouble) -> None:
    result = planned([want(instance)], host)
    assert result.waits == (Wait(want(instance), trouble),)
    assert result.quiet


def test_a_stopped_machine_that_has_its_gpu_keeps_it() -> None:
    assert planned([want()], seen(device(node=Node.UNKNOWN), status="stopped")).detaches == ()


def test_a_stopped_machine_whose_booking_is_over_loses_it() -> None:
    host = seen(device(node=Node.UNKNOWN), status="stopped")
    assert [item.instance for item in planned([], host).detaches] == ["alice"]


def test_a_device_made_by_hand_is_reported_left_alone_and_not_given_to_a_second() -> None:
    by_hand = DeviceSeen("mygpu", GPU.pci_address, ours=False, node=Node.PRESENT)
    host = both(seen(), seen(by_hand, name="bob"))
    result = planned([want()], host)
    assert [item.instance for item in result.foreign] == ["bob"]
    assert result.detaches == ()
    assert result.waits == (Wait(want(), Trouble.HELD),)


def test_a_device_of_our_name_with_another_gpu_behind_it_goes() -> None:
    wrong = DeviceSeen(NAME, OTHER.pci_address, ours=True, node=Node.PRESENT, tag=TAG)
    result = planned([want()], seen(wrong))
    assert [item.pci_address for item in result.detaches] == [OTHER.pci_address]


def test_two_gpus_of_one_booking_are_two_attaches() -> None:
    wants = [want(), want(gpu=OTHER, tag=Tag(7, 71, TAG.ends_at))]
    assert [item.want.gpu for item in planned(wants, seen()).attaches] == [GPU, OTHER]


def test_alone_what_is_over_by_its_own_tag_goes_and_what_has_none() -> None:
    """Berth writes the tag in one update with the device: what has none, Berth did not plug in."""
    over = Tag(1, 10, int(NOW.timestamp()))
    host = both(seen(device(tag=over)), both(seen(device(OTHER), name="bob"), seen(device(tag=None), name="carol")))
    result = plan(from_tags(host, NOW, (GPU, OTHER), None), host)
    assert [item.instance for item in result.detaches] == ["alice", "carol"]
    assert result.attaches == ()


def test_alone_a_copy_of_a_machine_has_no_right_to_what_its_tag_says() -> None:
    """A tag comes along with a copy, and back with a snapshot."""
    host = both(seen(device()), seen(device(), name="copy"))
    result = plan(from_tags(host, NOW, (GPU,), Desired(1, NOW, (want(),))), host)
    assert [item.instance for item in result.detaches] == ["copy"]
    assert [item.instance for item in result.attached] == ["alice"]
    moved_on = Desired(1, NOW, (want(tag=Tag(8, TAG.allocation_id + 1, TAG.ends_at)),))
    assert len(plan(from_tags(host, NOW, (GPU,), moved_on), host).detaches) == 2


def test_alone_and_never_told_a_gpu_that_two_claim_is_neithers() -> None:
    host = both(seen(device()), both(seen(device(), name="copy"), seen(device(OTHER), name="bob")))
    result = plan(from_tags(host, NOW, (GPU, OTHER), None), host)
    assert [item.instance for item in result.detaches] == ["alice", "copy"]
    assert [item.instance for item in result.attached] == ["bob"]


def test_alone_what_was_out_of_service_stays_the_admins() -> None:
    host = seen(device(gpu=GPU))
    assert from_tags(host, NOW, (GPU, OTHER), None).guarded == {GPU.pci_address}
    last = Desired(1, NOW, guarded=frozenset({GPU.pci_address}), grace=7)
    assert from_tags(seen(), NOW, (GPU, OTHER), last).guarded == {GPU.pci_address}
    assert from_tags(seen(), NOW, (GPU, OTHER), last).grace == 7


def test_alone_the_next_end_is_the_earliest_one_still_ahead() -> None:
    host = both(seen(device(tag=Tag(1, 1, int(NOW.timestamp()) - 5))), seen(device(OTHER), name="bob"))
    end = next_end(host, NOW)
    assert end is not None
    assert end.timestamp() == TAG.ends_at
    assert next_end(seen(), NOW) is None
