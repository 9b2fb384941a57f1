"""Changes of instances that an LXD refuses, forgets or undoes, or is at already; needs no LXD."""

from __future__ import annotations

import json

import pytest

from app.drivers import lxd
from app.drivers.base import GiveUp, TryAgain
from app.drivers.lxd import PylxdDriver, instances, updates
from tests.drivers.misbehaving import DONE, GPU, RUNNING, TAG, Server, instance


def test_an_update_refused_for_its_etag_is_made_again(server: Server, driver: PylxdDriver) -> None:
    done = instance(devices={"gpu-0000-01-00-0": {"type": "gpu", "gputype": "physical", "pci": "0000:01:00.0"}},
                    config={"user.berth.gpu-0000-01-00-0": str(TAG)})  # fmt: skip
    server.answers["GET", "/1.0/instances/t1"] = [instance(), instance(), instance(), done]
    server.answers["PUT", "/1.0/instances/t1"] = [
        (412, "ETag doesn't match: a vs b"), (202, "op1"), (202, "op2"),
    ]  # fmt: skip
    busy = {"status_code": 400, "err": "A matching non-reusable operation has now succeeded"}
    server.answers["GET", "/1.0/operations/op1/wait"] = busy
    server.answers["GET", "/1.0/operations/op2/wait"] = {"status_code": 200}
    driver.attach("t1", GPU, TAG)
    assert server.requests.count(("PUT", "/1.0/instances/t1")) == 3


def test_a_change_waits_for_its_turn_among_any_number_of_others(
    server: Server, driver: PylxdDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(updates, "PAUSE", 0.01)
    with_gpu = instance(devices={"gpu-0000-01-00-0": {"type": "gpu", "pci": "0000:01:00.0"}})
    server.answers["GET", "/1.0/instances/t1"] = [with_gpu] * 21 + [instance()]
    theirs = (400, "Failed to create instance update operation: A matching non-reusable operation has now succeeded")
    server.answers["PUT", "/1.0/instances/t1"] = [theirs] * 20 + [(202, "op")]
    server.answers["GET", "/1.0/operations/op/wait"] = DONE
    driver.detach("t1", "gpu-0000-01-00-0")
    assert server.requests.count(("PUT", "/1.0/instances/t1")) == 21
    monkeypatch.setattr(lxd, "DETACH_TIMEOUT", 0.2)
    server.answers["GET", "/1.0/instances/t1"], server.answers["PUT", "/1.0/instances/t1"] = with_gpu, theirs
    with pytest.raises(TryAgain, match="has now succeeded"):  # nor does it wait for ever
        driver.detach("t1", "gpu-0000-01-00-0")


NO_ROOM = 'Failed to write backup file: open "/x/containers/t1/backup.yaml": disk quota exceeded'


def test_a_change_that_a_full_disk_could_not_be_told_of_is_made(server: Server, driver: PylxdDriver) -> None:
    """LXD unplugs the GPU, and then fails to note that on the machine's own disk."""
    with_gpu = instance(devices={"gpu-0000-01-00-0": {"type": "gpu", "gputype": "physical", "pci": "0000:01:00.0"}},
                        config={"user.berth.gpu-0000-01-00-0": str(TAG)})  # fmt: skip
    server.answers["GET", "/1.0/instances/t1"] = [with_gpu, instance()]
    server.answers["PUT", "/1.0/instances/t1"] = (202, "op")
    server.answers["GET", "/1.0/operations/op/wait"] = {"status_code": 400, "err": NO_ROOM}
    driver.detach("t1", "gpu-0000-01-00-0")


def test_a_change_that_a_full_disk_keeps_from_being_made_is_no_success(server: Server, driver: PylxdDriver) -> None:
    server.answers["GET", "/1.0/instances/t1"] = instance()
    server.answers["PUT", "/1.0/instances/t1"] = (202, "op")
    server.answers["GET", "/1.0/operations/op/wait"] = {"status_code": 400, "err": NO_ROOM}
    with pytest.raises(GiveUp, match="the machine's disk is full") as refused:
        driver.attach("t1", GPU, TAG)
    assert "give it a larger disk" in refused.value.todo
    assert server.requests.count(("PUT", "/1.0/instances/t1")) == 2


def test_what_zfs_cannot_put_back_is_said_in_plain_words(server: Server, driver: PylxdDriver) -> None:
    words = 'Snapshot "s" cannot be restored due to subsequent snapshot(s). Set zfs.remove_snapshots to override'
    server.answers |= {
        ("GET", "/1.0/instances/t1"): instance(status="Stopped"),
        ("GET", "/1.0/instances/t1/snapshots/s"): {"name": "s"},
        ("PUT", "/1.0/instances/t1"): (202, "op"),
        ("GET", "/1.0/operations/op/wait"): {"status_code": 400, "err": words},
    }
    with pytest.raises(GiveUp, match="the newest snapshot only") as refused:
        driver.restore("t1", "s")
    assert refused.value.todo == "Delete the newer ones first."


@pytest.mark.parametrize("name", ["t1", "t2"])
def test_a_change_that_anothers_undoes_is_made_again(server: Server, driver: PylxdDriver, name: str) -> None:
    """Both have passed LXD's ETag check, and theirs is made after ours."""
    with_gpu = instance(devices={"gpu-0000-01-00-0": {"type": "gpu", "pci": "0000:01:00.0"}})
    theirs = {"description": "Updating instance", "resources": {"instances": [f"/1.0/instances/{name}"]}}
    server.answers |= {
        ("GET", "/1.0/instances/t1"): [with_gpu, instance(), with_gpu, instance()],
        ("PUT", "/1.0/instances/t1"): (202, "op"),
        ("GET", "/1.0/operations/op/wait"): DONE,
        ("GET", "/1.0/operations"): [{"running": [theirs]}, {"running": [theirs]}, {"success": [theirs]}],
    }
    driver.detach("t1", "gpu-0000-01-00-0")
    assert server.requests.count(("PUT", "/1.0/instances/t1")) == (2 if name == "t1" else 1)


def test_anothers_change_that_hangs_keeps_nobody_waiting_for_ever(
    server: Server, driver: PylxdDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(updates, "OTHERS", 0.05)
    with_gpu = instance(devices={"gpu-0000-01-00-0": {"type": "gpu", "pci": "0000:01:00.0"}})
    theirs = {"description": "Updating instance", "resources": {"instances": ["/1.0/instances/t1"]}}
    server.answers |= {
        ("GET", "/1.0/instances/t1"): [with_gpu, instance()],
        ("PUT", "/1.0/instances/t1"): (202, "op"),
        ("GET", "/1.0/operations/op/wait"): DONE,
        ("GET", "/1.0/operations"): {"running": [theirs]},
    }
    driver.detach("t1", "gpu-0000-01-00-0")
    assert server.requests.count(("GET", "/1.0/instances/t1")) == 2


def test_an_update_that_never_takes_is_not_called_done(server: Server, driver: PylxdDriver) -> None:
    server.answers["GET", "/1.0/instances/t1"] = instance()
    server.answers["PUT", "/1.0/instances/t1"] = (202, "op")
    server.answers["GET", "/1.0/operations/op/wait"] = {"status_code": 200}
    with pytest.raises(TryAgain, match="not so"):
        driver.attach("t1", GPU, TAG)


def test_while_a_change_hangs_no_other_one_is_made(
    server: Server, driver: PylxdDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lxd, "DETACH_TIMEOUT", 0.1)
    with_gpu = instance(devices={"gpu-0000-01-00-0": {"type": "gpu", "pci": "0000:01:00.0"}})
    server.answers["GET", "/1.0/instances/t1"] = with_gpu
    server.answers["PUT", "/1.0/instances/t1"] = (202, "op")
    server.answers["GET", "/1.0/operations/op/wait"] = server.answers["GET", "/1.0/operations/op"] = RUNNING
    for _ in range(3):
        with pytest.raises(TryAgain, match="still at"):
            driver.detach("t1", "gpu-0000-01-00-0")
    assert server.requests.count(("PUT", "/1.0/instances/t1")) == 1
    server.answers["GET", "/1.0/operations/op"] = server.answers["GET", "/1.0/operations/op/wait"] = DONE
    server.answers["GET", "/1.0/instances/t1"] = [with_gpu, instance()]
    driver.detach("t1", "gpu-0000-01-00-0")


def test_a_stop_waits_for_its_turn(server: Server, driver: PylxdDriver) -> None:
    server.answers["GET", "/1.0/instances/t1"] = instance()
    server.answers["PUT", "/1.0/instances/t1/state"] = [
        (400, 'Instance is busy running a "update" operation'), (202, "refused"), (202, "op"),
    ]  # fmt: skip
    busy = {"status_code": 400, "err": 'Instance is busy running a "update" operation'}
    server.answers["GET", "/1.0/operations/refused/wait"] = busy
    server.answers["GET", "/1.0/operations/op/wait"] = DONE
    driver.stop("t1", force=True)
    assert server.requests.count(("PUT", "/1.0/instances/t1/state")) == 3


@pytest.mark.parametrize("times", [1, 3])
def test_a_start_that_lxd_fails_now_and_then_is_asked_for_again(
    server: Server, driver: PylxdDriver, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    monkeypatch.setattr(instances, "START_PAUSE", 0)
    server.answers["GET", "/1.0/instances/t1"] = instance(status="Stopped")
    server.answers["PUT", "/1.0/instances/t1/state"] = [(202, "failed")] * times + [(202, "op")]
    words = "Failed to handle idmapped storage: Failed to change ownership of: /pool/t1/rootfs/etc/hosts"
    server.answers["GET", "/1.0/operations/failed/wait"] = {"status_code": 400, "err": words}
    server.answers["GET", "/1.0/operations/op/wait"] = DONE
    if times == instances.START_TRIES:
        with pytest.raises(GiveUp, match="change ownership of"):
            driver.start("t1")
    else:
        driver.start("t1")
    asked = server.requests.count(("PUT", "/1.0/instances/t1/state"))
    assert asked == min(times + 1, instances.START_TRIES)


@pytest.mark.parametrize("obeyed", [True, False])
def test_a_restart_is_a_stop_and_a_start(
    server: Server, driver: PylxdDriver, monkeypatch: pytest.MonkeyPatch, *, obeyed: bool
) -> None:
    """LXD's own starts it with a GPU that was taken from it meanwhile."""
    monkeypatch.setattr(instances, "START_PAUSE", 0)
    up, off = instance(), instance(status="Stopped")
    server.answers["GET", "/1.0/instances/t1"] = [up, off] if obeyed else [up, up, off]
    deaf = [] if obeyed else [(202, "deaf")]
    server.answers["PUT", "/1.0/instances/t1/state"] = [*deaf, (202, "op"), (202, "failed"), (202, "op")]
    late = {"status_code": 400, "err": 'Failed shutting down instance, status is "Running": context deadline exceeded'}
    server.answers["GET", "/1.0/operations/deaf/wait"] = late
    failed = {"status_code": 400, "err": "Failed to run: lxd forkstart t1"}
    server.answers["GET", "/1.0/operations/failed/wait"] = failed
    server.answers["GET", "/1.0/operations/op/wait"] = DONE
    driver.restart("t1")
    asked = [
        (sent["action"], sent["force"]) for body in server.bodies if b"action" in body and (sent := json.loads(body))
    ]
    stops = [("stop", False)] if obeyed else [("stop", False), ("stop", True)]
    assert asked == [*stops, ("start", False), ("start", False)]


def test_a_device_error_is_told_in_lxds_words(server: Server, driver: PylxdDriver) -> None:
    server.answers["GET", "/1.0/instances/t1"] = instance()
    server.answers["PUT", "/1.0/instances/t1"] = (202, "op")
    words = 'Failed to start device "gpu-0000-01-00-0": Failed to detect requested GPU device'
    server.answers["GET", "/1.0/operations/op/wait"] = {"status_code": 400, "err": words}
    with pytest.raises(GiveUp, match="Failed to detect") as caught:
        driver.attach("t1", GPU, TAG)
    assert caught.value.detail == words
    assert server.requests.count(("PUT", "/1.0/instances/t1")) == 1


def test_a_machine_that_does_not_shut_down_can_be_forced(server: Server, driver: PylxdDriver) -> None:
    server.answers["GET", "/1.0/instances/t1"] = instance()
    server.answers["PUT", "/1.0/instances/t1/state"] = (202, "op")
    failed = {"status_code": 400, "err": 'Failed shutting down instance, status is "Running": context deadline'}
    server.answers["GET", "/1.0/operations/op/wait"] = failed
    with pytest.raises(TryAgain, match="did not shut down") as caught:
        driver.stop("t1")
    assert "at once" in caught.value.todo
    server.answers["GET", "/1.0/operations/op/wait"] = [failed, {"status_code": 200}]
    driver.restart("t1")  # after a clean one that was not obeyed, a forced one
