"""What every driver promises of a machine's life, run over the simulated one and over a real LXD."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from app.drivers.base import GiveUp, HostUnreachable, InstanceSpec, LxdDriver, Tag, TryAgain
from app.drivers.lifecycle import Size
from app.drivers.survey import InstanceUse
from tests.drivers.conftest import Subject

SMALL = Size(cpus=1, memory_mib=256, disk_gib=4)
NO_PROGRESS = lambda _step, _percent: None  # noqa: E731
TAG = Tag(booking_id=7, allocation_id=8, ends_at=1_800_000_000)


def use(subject: Subject, name: str) -> InstanceUse:
    return subject.driver.survey(frozenset({name})).instances[name]


def snapshots(subject: Subject, name: str) -> list[str]:
    return [one.name for one in use(subject, name).snapshots]


def test_a_survey_says_what_instances_use(subject: Subject) -> None:
    name, foreign = subject.machine(), subject.put("stopped")
    found = subject.driver.survey()
    one, other = found.instances[name], found.instances[foreign]
    assert (one.status, one.owner, one.privileged, one.isolated) == ("running", "alice", False, True)
    assert (one.cpus, one.memory_limit, one.disk_limit, one.pool) == ("1", "256MiB", "2GiB", "pool")
    assert (one.kind, one.profiles, one.gpus) == ("container", ("default",), ())
    assert one.cpu_seconds is not None
    assert (one.memory or 0) > 0
    assert (one.processes or 0) > 0
    assert (one.started_at or 0) > 1_700_000_000
    assert (other.status, other.owner, other.cpu_seconds, other.memory) == ("stopped", "", None, None)
    assert [(pool.name, pool.driver) for pool in found.pools] == [("pool", "btrfs")]
    assert (found.pools[0].used or 0) < (found.pools[0].total or 0)
    assert [profile.name for profile in found.profiles] == ["default"]
    assert (one.origins["root"], other.origins["root"]) == ("berth", "profile:default")
    assert one.origins.keys() == one.devices.keys()
    assert all(network.kind for network in found.networks)
    assert subject.driver.survey(frozenset({"no-such"})).instances == {}


def test_a_frozen_instance_goes_on_by_start_and_stops(subject: Subject) -> None:
    name = subject.machine()
    for _ in range(2):
        subject.driver.freeze(name)
        assert subject.seen(name).status == "frozen"
    subject.driver.start(name)
    assert subject.seen(name).status == "running"
    subject.driver.freeze(name)
    subject.driver.stop(name, force=True)
    assert subject.seen(name).status == "stopped"
    with pytest.raises(TryAgain, match="stopped"):
        subject.driver.freeze(name)


def test_a_stopped_instance_is_renamed_and_renaming_again_is_fine(subject: Subject) -> None:
    name, new, taken = subject.machine(), subject.name(), subject.put("stopped")
    with pytest.raises(TryAgain, match="running"):
        subject.driver.rename(name, new)
    subject.driver.stop(name, force=True)
    with pytest.raises(GiveUp, match="of that name"):
        subject.driver.rename(name, taken)
    for _ in range(2):
        subject.driver.rename(name, new)
        seen = subject.driver.observe(frozenset({name, new})).instances
        assert seen.keys() == {new}
    with pytest.raises(GiveUp, match="no such instance"):
        subject.driver.rename(name, "no-such")


def test_limits_are_set_and_a_full_disk_is_not_made_smaller(subject: Subject) -> None:
    name = subject.machine()
    for _ in range(2):
        subject.driver.resize(name, Size(cpus=2, memory_mib=512, disk_gib=4))
        found = use(subject, name)
        assert (found.cpus, found.memory_limit, found.disk_limit) == ("2", "512MiB", "4GiB")
    subject.driver.resize(name, Size(cpus=1, memory_mib=512, disk_gib=0))
    assert (use(subject, name).cpus, use(subject, name).disk_limit) == ("1", "4GiB")


def test_snapshots_come_and_go(subject: Subject) -> None:
    name = subject.machine()
    for _ in range(2):
        subject.driver.snapshot(name, "hand-1")
        assert snapshots(subject, name) == ["hand-1"]
    assert use(subject, name).snapshots[0].created_at > 1_700_000_000
    subject.driver.snapshot(name, "auto-2")
    for _ in range(2):
        subject.driver.forget(name, "hand-1")
        assert snapshots(subject, name) == ["auto-2"]


def test_a_restore_needs_a_stopped_instance_and_brings_no_gpu_and_no_old_settings(subject: Subject) -> None:
    name = subject.machine()
    subject.driver.attach(name, subject.gpus[0], TAG)
    subject.driver.snapshot(name, "with-gpu")
    with pytest.raises(TryAgain, match="running"):
        subject.driver.restore(name, "with-gpu")
    subject.driver.stop(name, force=True)
    subject.driver.resize(name, Size(cpus=2, memory_mib=512, disk_gib=0))
    with pytest.raises(GiveUp, match="no snapshot"):
        subject.driver.restore(name, "no-such")
    for _ in range(2):
        subject.driver.restore(name, "with-gpu")
        found = use(subject, name)
        assert (found.gpus, found.status, found.owner) == ((), "stopped", "alice")
        assert (found.cpus, found.memory_limit) == ("2", "512MiB")
        assert not [key for key in found.config if "gpu" in key]
    subject.driver.start(name)
    assert subject.seen(name).devices == ()


def test_only_an_unprivileged_instance_of_nobody_else_is_taken_over(subject: Subject) -> None:
    name, privileged = subject.put("stopped"), subject.put("privileged")
    for _ in range(2):
        subject.driver.adopt(name, "alice")
        assert use(subject, name).owner == "alice"
    with pytest.raises(GiveUp, match="somebody else"):
        subject.driver.adopt(name, "bob")
    with pytest.raises(GiveUp, match="privileged"):
        subject.driver.adopt(privileged, "alice")
    assert use(subject, privileged).owner == ""


def test_a_rebuild_starts_from_the_image_and_brings_no_gpu(subject: Subject) -> None:
    spec = subject.spec()
    subject.made += [f"{spec.name}-NEW", f"{spec.name}-OLD"]
    subject.driver.create(spec, NO_PROGRESS)
    subject.driver.attach(spec.name, subject.gpus[0], TAG)
    subject.driver.snapshot(spec.name, "hand-1")
    with pytest.raises(GiveUp, match="no-such"):
        subject.driver.rebuild(replace(spec, image="no-such"), NO_PROGRESS)
    assert subject.driver.observe().instances.keys() & set(subject.made) == {spec.name}
    subject.driver.rebuild(spec, NO_PROGRESS)
    found = use(subject, spec.name)
    assert (found.status, found.owner, found.gpus, found.snapshots) == ("running", "alice", (), ())
    assert subject.driver.observe().instances.keys() & set(subject.made) == {spec.name}


def test_a_rebuild_goes_on_where_it_failed_and_counts_on_nothing_that_an_older_one_left(subject: Subject) -> None:
    spec = subject.spec()
    old, new = f"{spec.name}-OLD", f"{spec.name}-NEW"
    subject.made += [old, new]
    for name in (old, new):  # as far as one came that failed after the first of them had lost its name
        subject.driver.create(replace(spec, name=name), NO_PROGRESS)
    subject.driver.stop(old, force=True)
    subject.driver.rebuild(replace(spec, image="no-such"), NO_PROGRESS)
    assert subject.driver.observe().instances.keys() & set(subject.made) == {spec.name}
    subject.driver.snapshot(spec.name, "hand-1")
    subject.driver.create(replace(spec, name=old), NO_PROGRESS)  # one that failed when all but this was done
    subject.driver.rebuild(spec, NO_PROGRESS)
    assert snapshots(subject, spec.name) == [], "it is another one"
    assert subject.driver.observe().instances.keys() & set(subject.made) == {spec.name}


def test_what_is_left_of_a_machine_is_deleted_with_it_also_where_that_is_all(subject: Subject) -> None:
    spec = subject.spec()
    beside = [f"{spec.name}-{end}" for end in ("NEW", "OLD", "MOVED")]
    subject.made += beside
    for names in ((spec.name, beside[2]), beside[:2]):
        for name in names:
            subject.driver.create(replace(spec, name=name), NO_PROGRESS)
        subject.driver.delete(spec.name, spec.owner)
        assert not subject.driver.observe().instances.keys() & set(subject.made)


CALLS: list[Callable[[LxdDriver, str], object]] = [
    lambda driver, name: driver.freeze(name),
    lambda driver, name: driver.rename(name, "other"),
    lambda driver, name: driver.resize(name, SMALL),
    lambda driver, name: driver.snapshot(name, "hand-1"),
    lambda driver, name: driver.restore(name, "hand-1"),
    lambda driver, name: driver.forget(name, "hand-1"),
    lambda driver, name: driver.rebuild(InstanceSpec(name, "base", 1, 256, 2, "alice"), NO_PROGRESS),
    lambda driver, name: driver.adopt(name, "alice"),
]


def test_nothing_of_it_is_done_to_a_missing_instance_or_a_host_that_is_away(subject: Subject) -> None:
    for call in CALLS:
        with pytest.raises(GiveUp, match="no such instance"):
            call(subject.driver, subject.name())
        with pytest.raises(HostUnreachable):
            call(subject.away, "t1")
    with pytest.raises(HostUnreachable):
        subject.away.survey()


def test_a_backup_that_cannot_be_made_leaves_no_file(subject: Subject, tmp_path: Path) -> None:
    name, file = subject.machine(), tmp_path / "file"
    for instance, snapshot, most, why in (
        ("no-such", "", 1 << 40, "no such instance"),
        (name, "hand-9", 1 << 40, "no snapshot hand-9"),
        (name, "", 1, "at most"),
    ):
        with pytest.raises(GiveUp, match=why):
            subject.driver.backup(instance, snapshot, file, most, NO_PROGRESS)
    assert not file.exists()
    assert subject.seen(name).status == "running"


def test_a_host_that_is_in_no_cluster_moves_nothing(subject: Subject) -> None:
    name = subject.put("half-made")
    with pytest.raises(GiveUp, match="cluster"):
        subject.driver.move(name, "nowhere", NO_PROGRESS)
    assert subject.seen(name).status == "stopped"
