"""Nothing is done in an instance that does not bear its owner's mark, whatever its name: from the pages to the host."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta

import pytest
from flask import Flask

from app import clock
from app.drivers.fake_directories import FakeDirectories
from app.drivers.shares import share_device
from app.extensions import db
from app.models import Instance, InstanceStatus, Operation, OperationKind, OperationState, User
from app.services import instances, operations, ports, shares
from app.services.plan import Trouble
from app.services.shares import Terms
from tests.factories import make_booking, make_instance, make_user
from tests.page import Client
from tests.workers.house import House, Now
from workers.doorman import Doorman
from workers.sharer import Sharer
from workers.surveyor import Surveyor
from workers.works import run_operations

ASKED = {"name": "gitlab", "place": "lab/base", "cpus": "1", "memory_gib": "1", "disk_gib": "5"}


@pytest.fixture
def mallory(house: House) -> User:
    house.host.images = [{"alias": "base", "description": ""}]
    house.lxd.add_instance("gitlab")  # made by hand, and nobody's in Berth
    return make_user("mallory")


@pytest.fixture
def do(app: Flask, house: House, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Operation]:
    monkeypatch.setattr("workers.works.threading.Thread", Now)  # the test has one connection only

    def work() -> Operation:
        db.session.commit()
        run_operations(app, "lab", house.lxd)
        db.session.expire_all()
        found = operations.last(gitlab().id)
        assert found is not None
        return found

    return work


def gitlab() -> Instance:
    query = db.select(Instance).where(Instance.name == "gitlab").execution_options(populate_existing=True)
    return db.session.scalars(query).one()


def test_what_a_name_is_taken_by_cannot_be_started_and_stays_when_the_machine_is_deleted(
    client: Client, house: House, mallory: User, do: Callable[[], Operation]
) -> None:
    client.login_as(mallory)
    assert client.post("/machines/new", ASKED).status == 303
    assert "not this owner's" in do().error
    for what in ("start", "stop", "restart"):
        assert client.post(f"/machines/gitlab/{what}").status == 409
    operations.enqueue(None, gitlab(), OperationKind.START)  # as whoever has got hold of the portal
    assert "not this owner's" in do().error
    assert gitlab().status == InstanceStatus.FAILED
    assert client.post("/machines/gitlab/delete", {"typed": "gitlab"}).status == 303
    assert do().state == OperationState.DONE
    assert gitlab().deleted_at is not None
    assert house.lxd.observe().instances["gitlab"].status == "running"


def test_an_instance_of_another_owner_is_not_deleted(house: House, mallory: User, do: Callable[[], Operation]) -> None:
    house.lxd.add_instance("gitlab", owner="alice")
    make_instance(mallory, house.host, "gitlab")
    instances.request(mallory, gitlab(), OperationKind.DELETE)
    assert do().state == OperationState.DONE
    assert house.lxd.observe().instances["gitlab"].owner == "alice"


def test_it_gets_no_account_port_directory_or_gpu_and_is_missing(app: Flask, house: House, mallory: User) -> None:
    make_instance(mallory, house.host, "gitlab")  # which says that it runs
    ports.reserve(gitlab(), house.host)
    share = shares.add("test", house.host, Terms("data", "/srv/data", "/srv/data"))
    share.active, share.checked_at = True, clock.now()
    booking = make_booking(mallory, house.gpus[:1], clock.now() - timedelta(hours=1), clock.now() + timedelta(hours=1))
    for step in (Doorman(app, "lab", house.lxd).step, Sharer(app, "lab", house.lxd, FakeDirectories()).step):
        db.session.commit()
        step()
    assert house.lxd.ran("gitlab") == []
    assert house.lxd.doorways()["gitlab"].doors == {}
    assert house.lxd.shares()["gitlab"].shares == {}
    assert house.lxd.shares()["alice"].shares.keys() == {share_device(share.id)}, "as it is for those who are marked"
    house.run()
    assert house.inside("gitlab") == set()
    assert house.allocation(booking).trouble == Trouble.MISSING
    assert gitlab().status == InstanceStatus.MISSING
    Surveyor(app, "lab", house.lxd, threading.Event()).step()
    assert gitlab().observed == {}
    house.lxd.adopt("gitlab", "mallory")  # an admin marks it as hers
    house.run()
    assert house.inside("gitlab") == {house.gpus[0].pci_address}
    assert gitlab().status == InstanceStatus.RUNNING
