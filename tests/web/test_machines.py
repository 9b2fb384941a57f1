"""A person's machines through the pages: asking, watching, switching, deleting, and what is refused."""

from __future__ import annotations

from datetime import timedelta

import pytest
from flask import Flask

from app import clock
from app.extensions import db
from app.models import Instance, InstanceStatus, Operation, OperationKind, OperationState
from app.services import bookings, instances, operations, policy
from app.services.claims import Ask
from app.services.inventory import UNSEEN
from tests.factories import make_admin, make_host, make_instance, make_template, make_user
from tests.page import Client, Page

IMAGES = [{"alias": "base", "description": "Debian with SSH"}, {"alias": "ubuntu/24.04", "description": ""}]
FIELDS = {"name": "liwei", "place": "lab03/base", "cpus": "4", "memory_gib": "8", "disk_gib": "40"}


def host(name: str = "lab03", **values: object):
    return make_host(name, images=IMAGES, seen_at=clock.now(), **values)


def machine_of(name: str) -> Instance:
    return db.session.scalars(db.select(Instance).where(Instance.name == name).order_by(Instance.id.desc())).first()


def operation_on(name: str) -> Operation:
    found = operations.last(machine_of(name).id)
    assert found is not None
    return found


def test_without_a_machine_the_form_is_the_page_and_makes_one(client: Client, woken: list[str]) -> None:
    host()
    client.login_as(make_user("liwei"))
    page = client.get("/machines")
    assert page.h1 == "My machine"
    form = page.form("Create machine")
    assert form.values["name"] == "liwei"
    assert page.all("//optgroup/@label") == ["lab03: 4 of 4 GPUs free now (NVIDIA RTX A6000)"]
    assert [str(option) for option in page.texts("//option")] == [
        "base (Debian with SSH) on lab03",
        "ubuntu/24.04 on lab03",
    ]
    answer = client.submit(form.fill(**{"CPUs": 4, "Memory (GiB)": 16, "Host and image": "lab03/ubuntu/24.04"}))
    assert (answer.status, answer.location) == (303, "/machines/liwei")
    assert woken == ["lab03"]
    made = machine_of("liwei")
    assert (made.image, made.memory_mib, made.status) == ("ubuntu/24.04", 16 * 1024, InstanceStatus.CREATING)
    assert operation_on("liwei").kind == OperationKind.CREATE


def test_progress_is_watched_until_it_is_final(client: Client, woken: list[str]) -> None:
    host()
    client.login_as(make_user("liwei"))
    client.post("/machines/new", FIELDS)
    operation = operation_on("liwei")
    operations.progress(operation.id, "copying", 40)
    page = client.get("/machines/liwei")
    assert page.h1 == "liwei"
    assert "Being created" in page.text
    assert "Copying the image, 40 %" in page.text
    assert page.all("//progress/@value") == ["40"]
    assert page.all("//*[@hx-get]/@hx-get") == ["/machines/liwei", "/machines/liwei/ways"]
    assert page.all("//noscript//a[text()='Refresh']/@href") == ["/machines/liwei"]
    assert not page.all("//main//form[not(@aria-label)]"), "nothing to press while it is being made"
    fragment = client.get("/machines/liwei", htmx=True)
    assert fragment.all("//progress/@value") == ["40"]
    operations.finish(operation.id, "agent:lab03")
    final = client.get("/machines/liwei", htmx=True)
    assert "Running" in final.text
    assert final.all("//*[@hx-get]/@id") == ["own-gpus"], "the polling ends, and what it gets is shown by itself"
    assert "liwei is ready." in final.texts("//*[@id='flash']")[0]


def test_a_failed_creation_says_why_and_can_be_tried_again(client: Client, woken: list[str]) -> None:
    host()
    client.login_as(make_user("liwei"))
    client.post("/machines/new", FIELDS)
    first = operation_on("liwei")
    operations.finish(first.id, "agent:lab03", "Copy the image: no space left on the pool. Make room on the host.")
    page = client.get("/machines/liwei")
    assert "The machine could not be created." in page.text
    assert "no space left on the pool" in page.text
    assert client.submit(page.form("Try again")).location == "/machines/liwei"
    again = operation_on("liwei")
    assert again.id != first.id
    assert (again.kind, again.state) == (OperationKind.CREATE, OperationState.QUEUED)
    assert "Being created" in client.get("/machines/liwei").text
    assert client.post("/machines/liwei/retry").status == 409


@pytest.mark.parametrize(
    ("kind", "then", "now"),
    [
        ("create", {"status": "running"}, "Running"),
        ("create", {"status": "failed"}, "Not created"),
        ("stop", {"status": "stopped"}, "Stopped"),
        ("delete", {"deleted_at": clock.now()}, ""),
    ],
)
def test_work_that_ends_while_its_page_is_made(
    client: Client, monkeypatch: pytest.MonkeyPatch, kind: str, then: dict[str, object], now: str
) -> None:
    """Its agent commits the end after the page has read the machine, and before it reads the work."""
    user = make_user("liwei")
    status = InstanceStatus.CREATING if kind == "create" else InstanceStatus.RUNNING
    machine = make_instance(user, host(), "liwei", status=status)
    operation = operations.enqueue(user, machine, OperationKind(kind))
    over = {"state": "failed" if then == {"status": "failed"} else "done"}
    written = [(Operation.__table__, operation.id, over), (Instance.__table__, machine.id, then)]
    client.login_as(user)
    read = instances.get

    def ended_after(*who: object) -> Instance:
        found = read(*who)
        for table, number, values in written:  # behind the back of what the page has loaded
            db.session.execute(table.update().where(table.c.id == number).values(values))
        db.session.commit()
        return found

    monkeypatch.setattr(instances, "get", ended_after)
    page = client.get("/machines/liwei", htmx=True)
    monkeypatch.undo()
    if now:
        assert page.texts("//article/p")[0] == now
        assert page.all("//article//*[@class='actions']"), "there is something to press"
        assert page.all("//*[@hx-get]/@id") == ["own-gpus"], "the polling ends"
    else:
        assert page.all("//*[@hx-get]/@hx-get") == ["/machines/liwei"], "it is gone at the next look"
        assert not page.all("//article//*[@class='actions']")
        assert client.get("/machines/liwei", htmx=True).status == 204


@pytest.mark.parametrize("kind", [OperationKind.REBUILD, OperationKind.MOVE])
def test_a_rebuild_or_a_move_that_left_no_machine_can_be_tried_again(
    client: Client, woken: list[str], kind: OperationKind
) -> None:
    at = host()
    at.member, at.cluster = "m3", "c1"
    other = make_host("lab04", member="m4", cluster="c1")
    user = make_user("liwei")
    machine = make_instance(user, at, "liwei", status=InstanceStatus.MISSING)
    client.login_as(user)
    lost = "does not have this machine any more"
    assert lost in client.get("/machines/liwei").text
    first = operations.enqueue(user, machine, kind, to=other.id, host="lab04", member="m4", ran=True)
    operations.finish(first.id, "agent:lab03", "Connect to LXD: it went away in the middle of it.")
    page = client.get("/machines/liwei")
    assert "it went away in the middle of it" in page.text
    assert "Try again, and it goes on from there." in page.text
    assert lost not in page.text
    assert client.submit(page.form("Try again")).location == "/machines/liwei"
    again = operation_on("liwei")
    assert (again.kind, again.state, woken) == (kind, OperationState.QUEUED, ["lab03"])
    assert client.post("/machines/liwei/retry").status == 409
    operations.finish(again.id, "agent:lab03")
    assert machine_of("liwei").host_id == (other.id if kind == OperationKind.MOVE else at.id)


def test_retry_is_for_failed_creations_only(client: Client) -> None:
    user = make_user("liwei")
    make_instance(user, host(), "liwei")
    client.login_as(user)
    page = client.post("/machines/liwei/retry")
    assert page.status == 409
    assert "exists already" in page.text
    assert db.session.scalar(db.select(db.func.count(Operation.id))) == 0


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("name", "", "Fill this in."),
        ("name", "Li Wei", "starts with a letter"),
        ("name", "-x", "starts with a letter"),
        ("name", "x\n", None),  # blanks at the ends are not meant
        ("name", "a\nb", "starts with a letter"),
        ("name", "new", "is taken"),
        ("name", "<script>alert(1)</script>", "starts with a letter"),
        ("name", "a" * 31, "30 characters at most"),
        ("name", "a" * 100_000, "30 characters at most"),
        ("name", "机器", "starts with a letter"),
        ("place", "lab03/nothing", "from the list"),
        ("place", "lab09/base", "from the list"),
        ("place", "", "from the list"),
        ("place", "'\"><b>", "from the list"),
        ("cpus", "0", "from 1 to 8"),
        ("cpus", "9", "from 1 to 8"),
        ("cpus", "-1", "Give a whole number."),
        ("cpus", "1.5", "Give a whole number."),
        ("cpus", "٣", "Give a whole number."),
        ("cpus", "", "Fill this in."),
        ("memory_gib", "33", "from 1 to 32"),
        ("memory_gib", "99999999999999999999", "Give a whole number."),
        ("disk_gib", "101", "from 1 to 100"),
        ("disk_gib", "<b>1</b>", "Give a whole number."),
    ],
)
def test_bad_fields_are_named_and_the_rest_is_kept(
    client: Client, woken: list[str], field: str, value: str, words: str | None
) -> None:
    host()
    client.login_as(make_user("liwei"))
    page = client.post("/machines/new", FIELDS | {field: value})
    if words is None:
        assert page.status == 303
        return
    assert page.status == 422
    assert words in page.texts("//*[@role='alert']")[1]
    assert words in page.texts(f"//*[@id='{field}-error']")[0]
    other = "disk_gib" if field != "disk_gib" else "cpus"
    assert page.all(f"//input[@name='{other}']/@value") == [FIELDS[other]]
    assert "<script>alert" not in page.body
    assert not page.all("//main//b")
    assert (machine_of("liwei"), woken) == (None, [])


def test_a_taken_name_and_too_many_machines(client: Client, woken: list[str]) -> None:
    lab = host()
    make_instance(make_user("chenyu"), lab, "gamma")
    user = make_user("liwei")
    client.login_as(user)
    assert "The name gamma is taken." in client.post("/machines/new", FIELDS | {"name": "gamma"}).text
    make_instance(user, lab, "one")
    make_instance(user, lab, "two")
    page = client.post("/machines/new", FIELDS)
    assert page.status == 422
    assert "You may have 2 machines at most." in page.text
    assert "Add a machine" not in client.get("/machines").links()


def test_where_admins_make_the_machines(client: Client, woken: list[str]) -> None:
    host()
    rules = policy.current()
    rules.self_service = False
    client.login_as(make_user("liwei"))
    page = client.get("/machines")
    assert "an admin makes the machines" in page.text
    assert "Create machine" not in page.buttons()
    page = client.post("/machines/new", FIELDS)
    assert page.status == 422
    assert machine_of("liwei") is None


def test_an_admin_makes_one_for_somebody_beyond_the_rules(client: Client, woken: list[str]) -> None:
    host()
    owner = make_user("liwei")
    client.login_as(make_admin("root-of-lab"))
    form = client.get("/machines/new").form("Create machine")
    answer = client.submit(form.fill(Owner="liwei", Name="big", CPUs=64))
    assert answer.status == 303
    assert (machine_of("big").owner_id, machine_of("big").cpus) == (owner.id, 64)
    page = client.post("/machines/new", FIELDS | {"name": "huge", "owner": "liwei", "cpus": "1025"})
    assert "from 1 to 1024" in page.text
    assert client.post("/machines/new", FIELDS | {"name": "huge", "owner": "nobody"}).status == 422


def test_a_user_cannot_make_one_for_somebody_else(client: Client, woken: list[str]) -> None:
    host()
    make_user("chenyu")
    user = make_user("liwei")
    client.login_as(user)
    client.post("/machines/new", FIELDS | {"owner": "chenyu"})
    assert machine_of("liwei").owner_id == user.id


def test_hosts_that_are_off_are_not_on_offer(client: Client) -> None:
    host("lab03", enabled=False)
    make_host("lab04")
    client.login_as(make_user("liwei"))
    page = client.get("/machines")
    assert "No host has an image" in page.text
    assert client.post("/machines/new", FIELDS).status == 422


def test_stop_and_restart_ask_first_and_start_does_not(client: Client, woken: list[str]) -> None:
    user = make_user("liwei")
    make_instance(user, host(), "liwei")
    client.login_as(user)
    page = client.get("/machines/liwei")
    confirm = client.get(page.link("Stop…"))
    assert confirm.h1 == "Stop liwei?"
    answer = client.submit(confirm.form("Stop"))
    assert answer.location == "/machines/liwei"
    assert "Stopping" in client.get("/machines/liwei").text
    assert woken == ["lab03"]
    operations.finish(operation_on("liwei").id, "agent:lab03")
    page = client.get("/machines/liwei")
    assert "Stopped" in page.text
    client.submit(page.form("Start"))
    assert operation_on("liwei").kind == OperationKind.START
    operations.finish(operation_on("liwei").id, "agent:lab03")
    confirm = client.get(client.get("/machines/liwei").link("Restart…"))
    client.submit(confirm.form("Restart"))
    assert operation_on("liwei").kind == OperationKind.RESTART


def test_two_pieces_of_work_at_once_are_refused(client: Client, woken: list[str]) -> None:
    user = make_user("liwei")
    make_instance(user, host(), "liwei")
    client.login_as(user)
    assert client.post("/machines/liwei/stop").status == 303
    page = client.post("/machines/liwei/restart")
    assert page.status == 409
    assert "Other work on liwei is still under way." in page.text
    assert "Stopping" in page.text
    assert db.session.scalar(db.select(db.func.count(Operation.id))) == 1
    assert woken == ["lab03"]


def test_a_failed_switch_is_said_and_leaves_the_buttons(client: Client) -> None:
    user = make_user("liwei")
    instance = make_instance(user, host(), "liwei")
    operations.finish(operations.enqueue(user, instance, OperationKind.STOP).id, "agent", "<i>It hangs</i>")
    client.login_as(user)
    page = client.get("/machines/liwei")
    assert "The machine could not be stopped." in page.text
    assert "<i>It hangs</i>" in page.text
    assert "Stop…" in page.links()


def test_deleting_takes_the_name(client: Client, woken: list[str]) -> None:
    policy.current().delete_days = 0  # else it is stopped first: see test_machine_care
    user = make_user("liwei")
    make_instance(user, host(), "liwei")
    client.login_as(user)
    page = client.get(client.get("/machines/liwei").link("Delete…"))
    assert "cannot be undone" in page.text
    wrong = client.submit(page.form("Delete for good").fill(**{"Type the machine's name to delete it": "LIWEI"}))
    assert wrong.status == 422
    assert "Type liwei." in wrong.texts("//*[@id='typed-error']")[0]
    assert woken == []
    client.submit(page.form("Delete for good").fill(**{"Type the machine's name to delete it": "liwei"}))
    assert operation_on("liwei").kind == OperationKind.DELETE
    operations.finish(operation_on("liwei").id, "agent:lab03")
    gone = client.get("/machines/liwei", htmx=True)
    assert gone.headers["HX-Redirect"] == "/machines"
    assert "liwei is deleted." in client.get("/machines").text
    assert client.get("/machines/liwei").status == 404


def test_a_machine_with_a_running_booking_stays(client: Client) -> None:
    user = make_user("liwei")
    lab = host()
    make_instance(user, lab, "liwei")
    booking = bookings.create(user, Ask(ends_at=clock.now() + timedelta(hours=2)), 900)
    client.login_as(user)
    page = client.post("/machines/liwei/delete", {"typed": "liwei"})
    assert page.status == 422
    assert "A booking with this machine is running." in page.text
    assert "booked until" in client.get("/machines/liwei").text
    booking.allocations[0].attached_at = clock.now()
    assert "GPU 0 attached until" in client.get("/machines/liwei").text
    assert "stays booked until" in client.get("/machines/liwei/stop").text


def test_gpus_go_to_the_oldest_machine_unless_the_booking_names_one(client: Client) -> None:
    user = make_user("liwei")
    lab = host()
    make_instance(user, lab, "old")
    young = make_instance(user, lab, "young")
    booking = bookings.create(user, Ask(ends_at=clock.now() + timedelta(hours=2)), 900)
    client.login_as(user)
    assert "GPU 0 booked" in client.get("/machines/old").text
    assert "No GPU now." in client.get("/machines/young").text
    booking.instance = young
    assert "GPU 0 booked" in client.get("/machines/young").text
    assert "No GPU now." in client.get("/machines/old").text


def test_a_silent_host_is_said(client: Client) -> None:
    user = make_user("liwei")
    lab = host()
    make_instance(user, lab, "liwei")
    client.login_as(user)
    assert "Running" in client.get("/machines/liwei").text
    lab.seen_at = clock.now() - timedelta(minutes=5)
    page = client.get("/machines/liwei")
    assert "Not reachable" in page.text
    assert "lab03 reported last 5 minutes ago." in page.text
    lab.seen_at, lab.trouble = clock.now(), "connect /secret/path: refused"
    page = client.get("/machines/liwei")
    assert "lab03 does not answer at the moment." in page.text
    assert "/secret/path" not in page.body
    lab.trouble = f"{UNSEEN}8 looks hang"
    page = client.get("/machines/liwei")
    assert "does not answer" not in page.text, "it does: its machines are as the page has them, and can be entered"


ADDRESSES = ["/machines/gamma", "/machines/gamma/stop", "/machines/gamma/restart", "/machines/gamma/delete"]
CHANGES = [f"/machines/gamma/{what}" for what in ("start", "stop", "restart", "retry", "delete")]


def test_another_persons_machine_is_not_there(client: Client, woken: list[str]) -> None:
    make_instance(make_user("chenyu"), host(), "gamma")
    client.login_as(make_user("liwei"))
    for address in ADDRESSES:
        assert client.get(address).status == 404, address
    for address in CHANGES:
        assert client.post(address, {"typed": "gamma"}).status == 404, address
    assert (db.session.scalar(db.select(db.func.count(Operation.id))), woken) == (0, [])


def test_an_admin_may_switch_anybodys(client: Client, woken: list[str]) -> None:
    make_instance(make_user("chenyu", full_name="Chen Yu"), host(), "gamma")
    client.login_as(make_admin("boss"))
    for address in ADDRESSES:
        assert client.get(address).status == 200, address
    assert "Chen Yu" in client.get("/machines/gamma").text
    assert client.post("/machines/gamma/stop").status == 303


@pytest.mark.parametrize("name", ["nothing", "%3Cb%3E", "a%00b", "..%2F..%2Fetc", "a" * 3000, "机"])
def test_no_such_machine(client: Client, name: str) -> None:
    client.login_as(make_user("liwei"))
    assert client.get(f"/machines/{name}").status == (400 if "%00" in name else 404)


def test_signed_out(client: Client) -> None:
    for address in ["/machines", "/machines/new", *ADDRESSES]:
        page = client.get(address)
        assert (page.status, page.location.partition("?")[0]) == (302, "/login"), address


def test_the_list_asks_little_of_the_database(client: Client, app: Flask, count_queries) -> None:
    user = make_user("liwei")
    lab = host()
    client.login_as(user)

    def cost() -> int:
        with count_queries() as queries:
            client.get("/machines")
        return len(queries)

    for number in range(2):
        make_instance(user, lab, f"m{number}")
    first = cost()
    for number in range(2, 9):
        make_instance(user, lab, f"m{number}")
    assert cost() == first
    assert instances.of_user(user)


def test_several_machines_and_the_way_to_one_more(client: Client) -> None:
    user = make_user("liwei")
    make_instance(user, host(), "liwei")
    client.login_as(user)
    page: Page = client.get("/machines")
    assert page.h1 == "My machine"
    form = client.get(page.link("Add a machine")).form("Create machine")
    assert form.values["name"] == "liwei-2"


def test_the_only_machine_is_whole_on_the_page_that_the_menu_leads_to(client: Client) -> None:
    user, lab = make_user("liwei"), host()
    make_instance(user, lab, "liwei")
    client.login_as(user)
    page, own = client.get("/machines"), client.get("/machines/liwei")
    assert page.texts("//h2")[0] == "liwei"
    there, here = (set(one.links()) for one in (own, page))
    assert {"Delete…", "Name, size and more", "Backup", "Terminal in the browser"} <= here
    assert (there - here, here - there) == ({"All my machines"}, {"liwei", "Add a machine"})
    operations.enqueue(user, machine_of("liwei"), OperationKind.STOP)
    (again,) = client.get("/machines").all("//*[@id='machines']/@hx-get")
    assert client.get(again, htmx=True).texts("//h2") == ["liwei"], "its name stays while it is being stopped"
    make_instance(user, lab, "second")
    page = client.get("/machines")
    assert (page.h1, page.texts("//h2"), "Delete…" in page.links()) == ("My machines", ["liwei", "second"], False)
    machine_of("second").deleted_at = clock.now()
    assert client.get("/machines", htmx=True).headers["HX-Redirect"] == "/machines", "the page for one is another"


def surveyed(name: str, memory_used: int, driver: str = "zfs"):
    gib = 1 << 30
    pools = [{"name": "pool", "driver": driver, "used": 100 * gib, "total": 1000 * gib}]
    survey = {"memory": 128 * gib, "memory_used": memory_used * gib, "pools": pools, "pool": "pool"}
    return host(name, survey=survey)


def test_wherever_there_is_room_comes_first_and_each_host_shows_its_room(client: Client, woken: list[str]) -> None:
    for name, used in {"lab01": 100, "lab02": 20}.items():
        make_template(surveyed(name, used), "base", description="for all")
    client.login_as(make_user("liwei"))
    page = client.get("/machines")
    assert page.texts("//p[@class='group']") == [
        "Wherever there is room",
        "lab01: 4 of 4 GPUs free now (NVIDIA RTX A6000), 0 machines, 28 GiB of memory and 750 GiB of disk free",
        "lab02: 4 of 4 GPUs free now (NVIDIA RTX A6000), 0 machines, 108 GiB of memory and 750 GiB of disk free",
    ]
    assert page.all("//input[@name='place'][starts-with(@value, 'anywhere:')]/@value") == ["anywhere:base"]
    answer = client.submit(page.form("Create machine").fill(**{"Memory (GiB)": 32}))
    assert (answer.status, woken) == (303, ["lab02"])
    assert machine_of("liwei").template.host_id == machine_of("liwei").host_id
    chosen = client.get("/machines/new?host=lab01")
    assert chosen.texts("//p[@class='group']")[0].startswith("lab01")


def test_without_room_the_form_says_why(client: Client, woken: list[str]) -> None:
    for name in ("lab01", "lab02"):
        make_template(surveyed(name, 120), "base")
    client.login_as(make_user("liwei"))
    page = client.submit(client.get("/machines").form("Create machine").fill(**{"Memory (GiB)": 16}))
    assert page.status == 422
    assert "No host has room for a machine of this size from base." in page.text
    assert "lab01 has 8 GiB of memory free. lab02 has 8 GiB of memory free." in page.text
    assert client.post("/machines/new", FIELDS | {"place": "anywhere:gone"}).status == 422
    assert woken == []


def test_a_chosen_host_without_room_is_said_and_an_admin_may_go_on(client: Client, woken: list[str]) -> None:
    surveyed("lab03", 124)
    wish = FIELDS | {"memory_gib": "8", "anyway": "y"}  # a tick that others do not get counts for nothing
    client.login_as(make_user("liwei"))
    page = client.post("/machines/new", wish)
    assert (page.status, woken) == (422, [])
    assert "lab03 has 4 GiB of memory free. Take less, or go where there is room." in page.text
    assert not page.all("//input[@name='anyway']")
    client.login_as(make_admin("boss"))
    form = client.get("/machines/new").form("Create machine")
    page = client.submit(form.fill(**{"Name": "big", "Memory (GiB)": 8, "Disk (GiB)": 20}))
    assert page.status == 422
    again = page.form("Create machine").fill(**{"There is no room for it: do it all the same": "y"})
    assert (again.values["name"], again.values["memory_gib"]) == ("big", "8")
    assert (client.submit(again).status, woken) == (303, ["lab03"])
    assert machine_of("big").memory_mib == 8192


def test_a_pool_that_keeps_to_no_disk_size_is_said_to(client: Client) -> None:
    surveyed("lab01", 1)
    lab02 = surveyed("lab02", 1, "dir")
    liwei = make_user("liwei")
    client.login_as(liwei)
    said = "on lab02 nothing keeps a machine to it (a dir pool), so please do so yourself"
    assert said in client.get("/machines").text
    make_instance(liwei, lab02, "gamma", observed={"pool_driver": "dir"})
    assert "(its storage pool does not keep to it: please do so yourself)" in client.get("/machines/gamma").text
