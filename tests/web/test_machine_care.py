"""Name, size, pause, autostart and deletion with days to change one's mind, as pages."""

from __future__ import annotations

from datetime import timedelta

import pytest
from flask import Flask

from app import clock
from app.extensions import db
from app.models import Host, Instance, InstanceStatus, Operation, OperationKind, User
from app.services import operations, policy
from tests.factories import gpus_of, make_admin, make_booking, make_host, make_instance, make_template, make_user
from tests.page import Client

SIZES = {"pool": 1000, "small": 100}  # GiB of a host's storage pools


@pytest.fixture
def lab(app: Flask) -> Host:
    return make_host("lab03", seen_at=clock.now())


@pytest.fixture
def machine(client: Client, lab: Host) -> Instance:
    """Li Wei's, and he is signed in."""
    user = make_user("liwei")
    made = make_instance(user, lab, "gamma")
    client.login_as(user)
    return made


def fresh(machine: Instance) -> Instance:
    db.session.expire_all()
    return db.session.get(Instance, machine.id)


def last(machine: Instance) -> Operation:
    found = operations.last(machine.id)
    assert found is not None
    return found


def test_a_new_size_is_asked_for_and_holds_once_it_is_done(client: Client, machine: Instance, woken: list[str]) -> None:
    page = client.get(client.get("/machines/gamma").link("Name, size and more"))
    answer = client.submit(page.form("Set size").fill(**{"CPUs": 8, "Memory (GiB)": 16, "Disk (GiB)": 80}))
    assert (answer.status, answer.location, woken) == (303, "/machines/gamma", ["lab03"])
    operation = last(machine)
    assert (operation.kind, operation.details) == ("resize", {"cpus": 8, "memory_mib": 16384, "disk_gib": 80})
    assert fresh(machine).cpus == 4, "not before it is so"
    operations.finish(operation.id, "agent:lab03")
    db.session.commit()
    after = fresh(machine)
    assert (after.cpus, after.memory_mib, after.disk_gib, after.status) == (8, 16384, 80, "running")


def test_a_size_that_failed_is_not_written_down(client: Client, machine: Instance, woken: list[str]) -> None:
    client.post("/machines/gamma/size", {"cpus": "2", "memory_gib": "4", "disk_gib": "10"})
    operations.finish(last(machine).id, "agent:lab03", "Resize gamma: a dir pool cannot make a disk smaller.")
    db.session.commit()
    assert fresh(machine).disk_gib == 50
    page = client.get("/machines/gamma")
    assert "The machine could not be resized." in page.text
    assert "cannot make a disk smaller" in page.text


def test_a_disk_grows_by_what_its_pool_has_left(client: Client, lab: Host, machine: Instance, woken: list[str]) -> None:
    pools = [{"name": name, "driver": "zfs", "used": 70 << 30, "total": size << 30} for name, size in SIZES.items()]
    lab.survey, machine.observed = {"pools": pools, "pool": "pool"}, {"pool": "small", "pool_driver": "zfs"}
    page = client.get("/machines/gamma/care")
    assert "100 at most; its storage pool has 15 GiB free" in page.text
    refused = client.submit(page.form("Set size").fill(**{"Disk (GiB)": 66}))
    assert (refused.status, operations.last(machine.id)) == (422, None)
    assert "lab03 has 15 GiB of disk free." in refused.text
    assert client.submit(refused.form("Set size").fill(**{"Disk (GiB)": 65})).status == 303
    operations.finish(last(machine).id, "agent:lab03")
    client.login_as(make_admin("boss"))
    refused = client.submit(client.get("/machines/gamma/care").form("Set size").fill(**{"Disk (GiB)": 99}))
    again = refused.form("Set size").fill(**{"There is no room for it: do it all the same": "y"})
    assert (client.submit(again).status, last(machine).details["disk_gib"]) == (303, 99)


@pytest.mark.parametrize(("field", "value"), [("cpus", "9"), ("memory_gib", "33"), ("disk_gib", "101"), ("cpus", "x")])
def test_a_size_beyond_the_rules_is_named(
    client: Client, machine: Instance, woken: list[str], field: str, value: str
) -> None:
    page = client.post("/machines/gamma/size", {"cpus": "2", "memory_gib": "4", "disk_gib": "50", field: value})
    assert page.status == 422
    assert page.texts(f"//*[@id='{field}-error']")
    assert (operations.last(machine.id), woken) == (None, [])


def test_a_rename_takes_the_name_at_once_and_gives_it_back_if_it_fails(
    client: Client, machine: Instance, woken: list[str]
) -> None:
    page = client.get("/machines/gamma/rename")
    assert "whatever runs on it is ended" in page.text
    answer = client.submit(page.form("Rename").fill(**{"New name": "delta"}))
    assert (answer.status, answer.location) == (303, "/machines/delta")
    assert "Being renamed" in client.get("/machines/delta").text
    assert client.get("/machines/gamma").status == 404
    assert last(machine).details == {"old": "gamma", "new": "delta", "ran": True}
    operations.finish(last(machine).id, "agent:lab03", "Rename gamma to delta: LXD did not answer in time.")
    db.session.commit()
    assert fresh(machine).name == "gamma"


def test_a_rename_that_was_done_keeps_the_name_whatever_failed_then(
    client: Client, machine: Instance, woken: list[str]
) -> None:
    client.post("/machines/gamma/rename", {"name": "delta"})
    operations.remember(last(machine).id, renamed=True)
    operations.finish(last(machine).id, "agent:lab03", "Start delta: no room.")
    db.session.commit()
    assert fresh(machine).name == "delta"


@pytest.mark.parametrize(
    ("name", "words"),
    [("beta", "is taken"), ("gamma", "already"), ("-x", "starts with"), ("new", "starts with"), ("", "Fill this in")],
)
def test_names_that_are_none(
    client: Client, lab: Host, machine: Instance, woken: list[str], name: str, words: str
) -> None:
    make_instance(make_user("chenyu"), lab, "beta")
    page = client.post("/machines/gamma/rename", {"name": name})
    assert page.status == 422
    assert words in page.texts("//*[@id='name-error']")[0]
    assert (fresh(machine).name, operations.last(machine.id), woken) == ("gamma", None, [])


def test_a_machine_with_a_running_booking_keeps_its_name(client: Client, lab: Host, machine: Instance) -> None:
    now = clock.now()
    owner = db.session.get(User, machine.owner_id)
    make_booking(owner, gpus_of(lab)[:1], now - timedelta(hours=1), now + timedelta(hours=1))
    page = client.post("/machines/gamma/rename", {"name": "delta"})
    assert page.status == 422
    assert "A booking with this machine is running." in page.text


def test_pausing_and_going_on(client: Client, machine: Instance, woken: list[str]) -> None:
    client.submit(client.get("/machines/gamma/care").form("Pause it"))
    operation = last(machine)
    assert operation.kind == OperationKind.FREEZE
    operations.finish(operation.id, "agent:lab03")
    db.session.commit()
    assert fresh(machine).status == InstanceStatus.FROZEN
    page = client.get("/machines/gamma/care")
    client.submit(page.form("Let it go on"))
    assert last(machine).kind == OperationKind.START
    assert client.post("/machines/gamma/pause").status == 409


def test_a_stopped_machine_cannot_be_paused(client: Client, machine: Instance) -> None:
    machine.status = InstanceStatus.STOPPED
    db.session.commit()
    assert "Pause it" not in client.get("/machines/gamma/care").buttons()
    assert "does not run" in client.post("/machines/gamma/pause").text


def test_autostart_is_switched(client: Client, machine: Instance) -> None:
    client.submit(client.get("/machines/gamma/care").form("Leave it stopped"))
    assert fresh(machine).autostart is False
    client.submit(client.get("/machines/gamma/care").form("Start it again"))
    assert fresh(machine).autostart is True


def delete(client: Client, **more: str):
    return client.post("/machines/gamma/delete", {"typed": "gamma", **more})


def test_deleting_stops_it_and_it_can_be_kept(client: Client, machine: Instance, woken: list[str]) -> None:
    assert "deleted for good in 7 days" in client.get("/machines/gamma/delete").text
    assert delete(client).location == "/machines/gamma"
    assert last(machine).kind == OperationKind.STOP
    assert fresh(machine).delete_at - clock.now() > timedelta(days=6.9)
    operations.finish(last(machine).id, "agent:lab03")
    db.session.commit()
    assert "is to be deleted" in client.post("/machines/gamma/start").text
    page = client.get("/machines/gamma")
    assert "To be deleted for good" in page.text
    client.submit(page.form("Keep it"))
    assert fresh(machine).delete_at is None
    assert client.post("/machines/gamma/start").status == 303


def test_only_an_admin_deletes_at_once(client: Client, machine: Instance, woken: list[str]) -> None:
    assert "Delete it at once" not in client.get("/machines/gamma/delete").text
    assert "Only an admin" in delete(client, at_once="y").text
    client.login_as(make_admin())
    page = client.get("/machines/gamma/delete")
    assert "Delete it at once" in page.text
    assert delete(client, at_once="y").status == 303
    assert last(machine).kind == OperationKind.DELETE


def test_without_days_of_grace_a_machine_goes_at_once(client: Client, machine: Instance, woken: list[str]) -> None:
    policy.current().delete_days = 0
    db.session.commit()
    assert "This cannot be undone." in client.get("/machines/gamma/delete").text
    delete(client)
    assert last(machine).kind == OperationKind.DELETE


def test_a_deletion_that_has_begun_cannot_be_taken_back(client: Client, machine: Instance, woken: list[str]) -> None:
    machine.delete_at = clock.now()
    operations.enqueue(None, machine, OperationKind.DELETE)
    db.session.commit()
    assert client.post("/machines/gamma/keep").status == 409
    assert fresh(machine).delete_at is not None


def test_what_it_uses_is_on_its_card_without_a_query_more(client: Client, machine: Instance, count_queries) -> None:
    with count_queries() as before:
        assert "Disk:" not in client.get("/machines/gamma").text
    machine.observed = {
        "disk": 3 << 30, "memory": 1 << 29, "started_at": 1_800_000_000, "snapshots": [], "pool_driver": "dir",
    }  # fmt: skip
    db.session.commit()
    with count_queries() as after:
        page = client.get("/machines/gamma")
    assert "Disk: 3.0 GiB of 50 GiB · Memory: 0.5 GiB of 8 GiB · up since" in page.text
    assert len(after) == len(before)
    assert "does not keep to a disk's size" in client.get("/machines/gamma/care").text


@pytest.mark.parametrize(
    ("used", "driver", "status", "said"),
    [
        (43, "btrfs", "running", True),
        (43, "zfs", "stopped", True),
        (50, "lvm", "frozen", True),
        (42, "btrfs", "running", False),
        (60, "dir", "running", False),
        (60, "", "running", False),
        (50, "btrfs", "missing", False),
    ],
)
def test_a_disk_that_is_full_is_said_with_what_to_do(
    client: Client, machine: Instance, used: int, driver: str, status: str, *, said: bool
) -> None:
    assert "full or nearly so" not in client.get("/machines/gamma").text
    disk = {"disk": used << 30, "disk_limit": "50GiB", "pool_driver": driver}
    machine.observed = {**disk, "memory": 1 << 29, "snapshots": []}
    machine.status = InstanceStatus(status)
    db.session.commit()
    page = client.get("/machines/gamma")
    assert (f"Its disk is full or nearly so: {used}.0 GiB of 50 GiB" in page.text) == said
    if said:
        assert page.link("Name, size and more") == "/machines/gamma/care"
        assert ("Remove files that you do not need, or give" in page.text) == (status == "running")


TYPED = "Type the machine's name to rebuild it"


def test_a_rebuild_takes_the_name_and_an_image_that_is_there(
    client: Client, lab: Host, machine: Instance, woken: list[str]
) -> None:
    page = client.get(client.get("/machines/gamma/care").link("Rebuild…"))
    assert "everything in /home" in page.text
    assert "what it was made from, ubuntu/24.04, is not there any more" in page.text
    assert not page.all("//main//button"), "nothing to make it from, nothing to type"
    refused = client.post("/machines/gamma/rebuild", {"typed": "gamma"})
    assert (refused.status, "has no image ubuntu/24.04" in refused.text) == (422, True)
    lab.images = [{"alias": "ubuntu/24.04", "description": ""}]
    db.session.commit()
    form = client.get("/machines/gamma/rebuild").form("Rebuild")
    wrong = client.submit(form.fill(**{TYPED: "GAMMA"}))
    assert (wrong.status, wrong.texts("//*[@id='typed-error']")) == (422, ["That is not its name. Type gamma."])
    assert operations.last(machine.id) is None
    assert client.submit(form.fill(**{TYPED: "gamma"})).location == "/machines/gamma"
    assert (last(machine).kind, fresh(machine).image) == (OperationKind.REBUILD, "ubuntu/24.04")


def test_a_template_that_was_built_anew_takes_the_place_of_a_retired_one(
    client: Client, lab: Host, machine: Instance, woken: list[str]
) -> None:
    old = make_template(lab, "desktop", retired_at=clock.now())
    new, ml = make_template(lab, "desktop"), make_template(lab, "ml")
    hidden = make_template(lab, "secret", for_everyone=False)
    make_template(make_host("lab04"), "elsewhere")
    machine.template_id, machine.image = old.id, old.image
    db.session.commit()
    page = client.get("/machines/gamma/rebuild")
    assert page.texts("//fieldset//label") == ["desktop, a newer one", "ml"]
    assert page.all("//input[@type='radio'][@checked]/@value") == [str(new.id)]
    assert "berth-template" not in page.text
    for number in (hidden.id, old.id, 10**12):
        bad = client.post("/machines/gamma/rebuild", {"typed": "gamma", "template": str(number)})
        assert (bad.status, bad.texts("//*[@id='template-error']")) == (422, ["Choose one from the list."])
        assert "secret" not in bad.text
    form = page.form("Rebuild").fill(**{TYPED: "gamma"})
    assert client.submit(form).location == "/machines/gamma"
    now = fresh(machine)
    assert (now.template_id, now.image, now.made_from) == (new.id, new.image, "desktop")
    operations.finish(last(machine).id, "agent:lab03", "Rebuild gamma: the disk is full.")
    db.session.commit()
    was = fresh(machine)
    assert (was.template_id, was.image) == (old.id, old.image), "it is what it was"
    client.post("/machines/gamma/rebuild", {"typed": "gamma", "template": str(ml.id)})
    operations.finish(last(machine).id, "agent:lab03")
    db.session.commit()
    assert fresh(machine).made_from == "ml"


def test_a_machine_that_was_taken_over_is_rebuilt_from_what_is_chosen(
    client: Client, lab: Host, machine: Instance, woken: list[str]
) -> None:
    machine.image = "Debian bookworm amd64 (20261101)"
    one, _other = make_template(lab, "desktop"), make_template(lab, "ml")
    db.session.commit()
    page = client.get("/machines/gamma/rebuild")
    assert not page.all("//input[@type='radio'][@checked]"), "nobody knows which"
    answer = client.submit(page.form("Rebuild").fill(**{TYPED: "gamma"}))
    assert (answer.status, answer.texts("//*[@id='template-error']")) == (422, ["Choose one from the list."])
    assert answer.all("//input[@id='typed']/@value") == ["gamma"]
    client.post("/machines/gamma/rebuild", {"typed": "gamma", "template": str(one.id)})
    assert (last(machine).kind, fresh(machine).template_id) == (OperationKind.REBUILD, one.id)


def test_a_machine_with_a_running_booking_is_not_rebuilt(client: Client, lab: Host, machine: Instance) -> None:
    now = clock.now()
    owner = db.session.get(User, machine.owner_id)
    make_booking(owner, gpus_of(lab)[:1], now - timedelta(hours=1), now + timedelta(hours=1))
    page = client.post("/machines/gamma/rebuild", {"typed": "gamma"})
    assert page.status == 422
    assert "A booking with this machine is running." in page.text


PAGES = ["/machines/gamma/care", "/machines/gamma/rebuild", "/machines/gamma/rename", "/machines/gamma/snapshots"]
PAGES += [f"/machines/gamma/snapshots/hand-1/{what}" for what in ("restore", "remove")]
CHANGES = [f"/machines/gamma/{what}" for what in ("pause", "size", "autostart", "rename", "rebuild", "keep", "delete")]
CHANGES += ["/machines/gamma/snapshots", "/machines/gamma/snapshots/schedule", *PAGES[-2:]]


def test_another_persons_machine_is_not_there(client: Client, machine: Instance, woken: list[str]) -> None:
    machine.observed = {"snapshots": [{"name": "hand-1", "at": 1, "size": None}]}
    db.session.commit()
    assert all(client.get(url).status == 200 for url in PAGES)
    client.login_as(make_user("eve"))
    assert [client.get(url).status for url in PAGES] == [404] * len(PAGES)
    form = {"name": "mine", "typed": "gamma", "cpus": "1", "memory_gib": "1", "disk_gib": "1", "schedule": "daily"}
    assert [client.post(url, form | {"keep": "1"}).status for url in CHANGES] == [404] * len(CHANGES)
    kept = fresh(machine)
    assert (kept.name, kept.delete_at, kept.schedule, kept.autostart) == ("gamma", None, "never", True)
    assert (operations.last(machine.id), woken) == (None, [])


def test_without_a_cluster_the_page_says_that_it_cannot_move(client: Client, machine: Instance) -> None:
    said = "lab03 is in no LXD cluster, so a machine cannot move from there."
    page = client.get("/machines/gamma/care")
    assert said in page.text
    assert "Move to another host…" not in page.links()
    page = client.get("/machines/gamma/move")
    assert said in page.text
    assert page.link("New machine") == "/machines/new"
    assert not page.all("//main//select")
    refused = client.post("/machines/gamma/move", {"host": "lab03"})
    assert refused.status == 422


def test_a_machine_is_moved_to_another_host_of_the_cluster(
    client: Client, machine: Instance, lab: Host, woken: list[str]
) -> None:
    lab.member, lab.cluster = "m3", "c1"
    for number, machines in ((4, 2), (5, 0)):
        other = make_host(f"lab0{number}", member=f"m{number}", cluster="c1", seen_at=clock.now())
        for count in range(machines):
            make_instance(make_user(), other, f"other{count}")
    booking = make_booking(
        db.session.get(User, machine.owner_id), gpus_of(lab)[:1], clock.now() + timedelta(days=1),
        clock.now() + timedelta(days=1, hours=1),
    )  # fmt: skip
    page = client.get(client.get("/machines/gamma/care").link("Move to another host…"))
    assert "It is booked with GPUs of lab03, the first time from" in page.text
    assert not page.all("//main//select")
    assert client.post("/machines/gamma/move", {"host": "lab04"}).status == 422
    booking.cancelled_at = clock.now()
    db.session.commit()
    page = client.get("/machines/gamma/move")
    assert page.texts("//select/option") == ["lab05", "lab04"]
    assert "lab05: 4 of 4 GPUs free now" in page.texts("//main//li")
    for wrong in ("", "lab99", "lab03"):
        assert client.post("/machines/gamma/move", {"host": wrong}).status in {404, 422}
    answer = client.submit(page.form("Move"))
    assert (answer.status, answer.location, woken) == (303, "/machines/gamma", ["lab03"])
    assert last(machine).details["host"] == "lab05"
    assert "Being moved" in client.get("/machines/gamma").text


def test_another_persons_machine_is_moved_by_nobody_else(client: Client, machine: Instance) -> None:
    client.login_as(make_user("mallory"))
    assert client.get("/machines/gamma/move").status == 404
    assert client.post("/machines/gamma/move", {"host": "lab04"}).status == 404
