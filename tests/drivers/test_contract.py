"""What every driver promises, run over the simulated one and over a real LXD."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from app.drivers.base import (
    DeviceSeen,
    DriverError,
    GiveUp,
    HostUnreachable,
    LxdDriver,
    Node,
    Tag,
    TryAgain,
    device_name,
)
from app.drivers.inside import shell
from app.drivers.libraries import Way
from tests.drivers.conftest import Subject

TAG = Tag(booking_id=7, allocation_id=8, ends_at=1_800_000_000)
NO_PROGRESS = lambda _step, _percent: None  # noqa: E731


def test_the_server_says_who_it_is(subject: Subject) -> None:
    server = subject.driver.server()
    assert server.name
    assert server.version


def test_gpus_are_listed_by_address_with_model_and_minor(subject: Subject) -> None:
    gpus = subject.driver.gpus()
    assert [gpu.pci_address for gpu in gpus] == ["0000:01:00.0", "0000:02:00.0"]
    assert {gpu.model for gpu in gpus} == {"NVIDIA RTX A6000"}
    assert [gpu.minor for gpu in gpus] == [gpu.minor for gpu in subject.gpus]


def test_images_are_listed_by_alias(subject: Subject) -> None:
    found = {image.alias: image for image in subject.driver.images()}
    assert found["base"].description
    assert found["base"].size_bytes > 1_000_000


def test_a_new_instance_runs_without_any_gpu(subject: Subject) -> None:
    steps: list[tuple[str, int]] = []
    spec = subject.spec()
    subject.driver.create(spec, lambda step, percent: steps.append((step, percent)))
    seen = subject.seen(spec.name)
    assert (seen.status, seen.privileged, seen.devices) == ("running", False, ())
    assert [key for key, _ in itertools.groupby(step for step, _ in steps)] == [
        "preparing", "copying", "starting", "checking",
    ]  # fmt: skip
    assert all(0 <= percent <= 100 for _, percent in steps)


def test_creating_again_takes_up_what_is_there(subject: Subject) -> None:
    spec = subject.spec(subject.put("half-made"))
    subject.driver.create(spec, NO_PROGRESS)
    assert subject.seen(spec.name).status == "running"
    subject.driver.create(spec, NO_PROGRESS)
    assert subject.seen(spec.name).status == "running"


def test_an_instance_of_somebody_else_is_not_taken_up(subject: Subject) -> None:
    for name in (subject.put("stopped"), subject.put("half-made")):
        with pytest.raises(GiveUp, match="not this owner's"):
            subject.driver.create(subject.spec(name, owner="bob"), NO_PROGRESS)
        assert subject.seen(name).status == "stopped"


def test_an_unknown_image_is_refused_and_leaves_nothing(subject: Subject) -> None:
    spec = subject.spec(image="no-such")
    with pytest.raises(GiveUp, match="no-such"):
        subject.driver.create(spec, NO_PROGRESS)
    assert spec.name not in subject.driver.observe().instances


def test_an_attached_gpu_is_seen_with_its_node_and_tag(subject: Subject) -> None:
    name, gpu = subject.machine(), subject.gpus[0]
    subject.driver.attach(name, gpu, TAG)
    expected = DeviceSeen(device_name(gpu.pci_address), gpu.pci_address, ours=True, node=Node.PRESENT, tag=TAG)
    assert subject.seen(name).devices == (expected,)
    assert subject.driver.observe().instances[name].devices == (expected,)


def test_a_check_is_told_of_every_instance_and_gpu(subject: Subject) -> None:
    name, gpu = subject.machine(), subject.gpus[0]
    subject.driver.attach(name, gpu, TAG)
    facts = subject.driver.examine()
    assert facts.version == subject.driver.server().version
    assert list(facts.gpus) == subject.driver.gpus()
    assert {gpu.minor for gpu in facts.gpus} == facts.nodes
    (found,) = [one for one in facts.instances if one.name == name]
    assert (found.status, found.container, found.project, found.without_node) == ("running", True, "default", ())
    assert found.devices[device_name(gpu.pci_address)]["pci"] == gpu.pci_address
    assert {device_name(gpu.pci_address), "security.privileged"} <= found.own
    assert found.config["boot.autostart"] == found.config["security.privileged"] == "false"
    assert any(profile.name == "default" for profile in facts.profiles)


def test_attaching_again_only_brings_the_tag_up_to_date(subject: Subject) -> None:
    name, gpu = subject.machine(), subject.gpus[0]
    subject.driver.attach(name, gpu, TAG)
    later = Tag(7, 8, TAG.ends_at + 900)
    subject.driver.attach(name, gpu, later)
    (device,) = subject.seen(name).devices
    assert (device.tag, device.node) == (later, Node.PRESENT)


def test_a_detached_gpu_is_gone_with_its_tag_and_detaching_again_is_fine(subject: Subject) -> None:
    name, gpu = subject.machine(), subject.gpus[0]
    subject.driver.attach(name, gpu, TAG)
    for _ in range(2):
        subject.driver.detach(name, device_name(gpu.pci_address))
        assert subject.seen(name).devices == ()
    subject.driver.attach(name, gpu, Tag(9, 9, 9))
    assert subject.seen(name).devices[0].tag == Tag(9, 9, 9)


def test_two_gpus_come_and_go_each_on_its_own(subject: Subject) -> None:
    name, (one, two) = subject.machine(), subject.gpus
    subject.driver.attach(name, one, TAG)
    subject.driver.attach(name, two, Tag(7, 9, 5))
    assert {(d.pci_address, d.node) for d in subject.seen(name).devices} == {
        (one.pci_address, Node.PRESENT), (two.pci_address, Node.PRESENT),
    }  # fmt: skip
    subject.driver.detach(name, device_name(one.pci_address))
    (left,) = subject.seen(name).devices
    assert (left.pci_address, left.node, left.tag) == (two.pci_address, Node.PRESENT, Tag(7, 9, 5))


def test_a_stopped_instance_gets_no_gpu_but_keeps_and_loses_one(subject: Subject) -> None:
    name, (one, two) = subject.machine(), subject.gpus
    subject.driver.attach(name, one, TAG)
    subject.driver.stop(name, force=True)
    assert [device.node for device in subject.seen(name).devices] == [Node.UNKNOWN]
    with pytest.raises(TryAgain, match="stopped"):
        subject.driver.attach(name, two, TAG)
    subject.driver.start(name)
    assert [device.node for device in subject.seen(name).devices] == [Node.PRESENT]
    subject.driver.stop(name, force=True)
    subject.driver.detach(name, device_name(one.pci_address))
    subject.driver.start(name)
    assert subject.seen(name).devices == ()


def test_power_is_idempotent(subject: Subject) -> None:
    name = subject.machine()
    subject.driver.start(name)
    assert subject.seen(name).status == "running"
    for _ in range(2):
        subject.driver.stop(name, force=True)
        assert subject.seen(name).status == "stopped"
    subject.driver.restart(name)
    assert subject.seen(name).status == "running"


def test_a_missing_instance_is_told_from_a_done_thing(subject: Subject) -> None:
    name, gpu = subject.name(), subject.gpus[0]
    calls: list[Callable[[], None]] = [
        lambda: subject.driver.attach(name, gpu, TAG),
        lambda: subject.driver.start(name),
        lambda: subject.driver.stop(name),
        lambda: subject.driver.restart(name),
    ]
    for call in calls:
        with pytest.raises(GiveUp, match="no such instance") as caught:
            call()
        assert caught.value.todo
    subject.driver.detach(name, device_name(gpu.pci_address))
    subject.driver.delete(name, "alice")
    assert subject.driver.observe(frozenset({name})).instances == {}


def test_a_privileged_instance_gets_no_gpu(subject: Subject) -> None:
    name = subject.put("privileged")
    assert subject.seen(name).privileged
    with pytest.raises(GiveUp, match="privileged"):
        subject.driver.attach(name, subject.gpus[0], TAG)
    assert subject.seen(name).devices == ()


def test_a_gpu_that_the_host_lacks_cannot_be_attached(subject: Subject) -> None:
    name, gpu = subject.machine(), subject.gpus[0]
    with pytest.raises(GiveUp):
        subject.driver.attach(name, type(gpu)("0000:7f:00.0", gpu.model, 200), TAG)
    assert subject.seen(name).devices == ()


def test_only_what_bears_its_owners_mark_is_deleted(subject: Subject) -> None:
    foreign, own = subject.put("stopped"), subject.machine()
    for anywhere in (False, True):
        subject.driver.delete(foreign, "alice", anywhere=anywhere)  # of hers there is none: that is done
        subject.driver.delete(own, "bob", anywhere=anywhere)
    assert [subject.seen(name).owner for name in (foreign, own)] == ["", "alice"]
    assert [subject.driver.doorways()[name].owner for name in (foreign, own)] == ["", "alice"]
    assert [subject.driver.shares()[name].owner for name in (foreign, own)] == ["", "alice"]
    for anywhere in (True, False):
        subject.driver.delete(own, "alice", anywhere=anywhere)
        assert own not in subject.driver.observe().instances


def test_only_a_running_instance_can_be_told(subject: Subject) -> None:
    subject.driver.tell(subject.machine(), "Your GPU goes", "At 14:00.\nSave your work.")
    with pytest.raises(TryAgain, match="stopped"):
        subject.driver.tell(subject.put("stopped"), "Your GPU goes", "At 14:00.")
    with pytest.raises(GiveUp, match="no such instance"):
        subject.driver.tell(subject.name(), "Your GPU goes", "At 14:00.")


def test_a_command_runs_in_a_running_instance_only(subject: Subject) -> None:
    assert subject.driver.run(subject.machine(), shell("true")).well
    with pytest.raises(TryAgain, match="stopped"):
        subject.driver.run(subject.put("stopped"), shell("true"))
    with pytest.raises(GiveUp, match="no such instance"):
        subject.driver.run(subject.name(), shell("true"))


def test_observe_gives_those_asked_for_that_exist(subject: Subject) -> None:
    names = {subject.put("stopped") for _ in range(4)}
    missing = frozenset({"no-such-a", "no-such-b"})
    assert subject.driver.observe(frozenset()).instances == {}
    assert subject.driver.observe(frozenset(names) | missing).instances.keys() == names
    one = names.pop()
    assert subject.driver.observe(frozenset({one, "no-such-a"})).instances.keys() == {one}


@pytest.mark.parametrize(
    "call",
    [
        lambda driver, gpu: driver.server(),
        lambda driver, gpu: driver.gpus(),
        lambda driver, gpu: driver.images(),
        lambda driver, gpu: driver.observe(),
        lambda driver, gpu: driver.examine(),
        lambda driver, gpu: driver.observe(frozenset({"t1"})),
        lambda driver, gpu: driver.attach("t1", gpu, TAG),
        lambda driver, gpu: driver.detach("t1", "gpu-0000-01-00-0"),
        lambda driver, gpu: driver.start("t1"),
        lambda driver, gpu: driver.stop("t1"),
        lambda driver, gpu: driver.restart("t1"),
        lambda driver, gpu: driver.delete("t1", "alice"),
        lambda driver, gpu: driver.tell("t1", "Title", "Text"),
    ],
)
def test_a_host_that_is_away_is_unreachable_not_empty(
    subject: Subject, call: Callable[[LxdDriver, object], object]
) -> None:
    with pytest.raises(HostUnreachable) as caught:
        call(subject.away, subject.gpus[0])
    assert caught.value.todo
    assert isinstance(caught.value, DriverError)


def test_the_way_of_nvidias_libraries_is_one_of_those_there_are(subject: Subject) -> None:
    brought = subject.driver.bring_libraries()
    assert brought.way in set(Way)
    assert not brought.cdi  # neither LXD 5.0 nor the simulated one has it
    own = subject.driver.bring_libraries(Way.INSTALL)
    assert own.way is Way.INSTALL


def test_a_host_that_brings_no_libraries_lends_none(subject: Subject) -> None:
    subject.driver.bring_libraries(Way.INSTALL)
    name = subject.machine()
    with pytest.raises(GiveUp, match="brings no libraries"):
        subject.driver.lend_libraries(name)
    with pytest.raises(GiveUp, match="no such instance"):
        subject.driver.lend_libraries("nobody")
