"""Every machine of every host, for admins; and taking over what somebody made by hand."""

from __future__ import annotations

from datetime import timedelta

import pytest

from app import clock
from app.extensions import db
from app.models import AuditEvent, Host, Instance, OperationKind, Readable, User
from app.services import operations, readings, surveys
from tests.factories import make_admin, make_host, make_instance, make_user
from tests.page import Client

USE = {
    "status": "running", "owner": "", "privileged": False, "isolated": False, "kind": "container", "image": "Debian",
    "cpu": 1.5, "memory": 2 << 30, "disk": 3 << 30, "processes": 31, "addresses": ["10.0.0.9"],
    "started_at": 1_790_000_000, "cpus": "3", "memory_limit": "6GiB", "disk_limit": "20GiB", "pool": "pool",
    "pool_driver": "btrfs", "profiles": ["default"], "config": {"limits.cpu": "3"}, "devices": {"root": "disk path=/"},
    "gpus": ["card"], "snapshots": [], "origins": {"root": "profile:default"},
}  # fmt: skip


@pytest.fixture
def lab(client: Client, woken: list[str]) -> Host:
    """A host with Li Wei's machine and one that somebody made by hand; an admin is signed in."""
    pools = [{"name": "pool", "driver": "btrfs", "used": 1 << 30, "total": 9 << 30}]
    profiles = [{"name": "default", "description": "", "devices": ["root: disk path=/"], "used_by": 2}]
    survey = {"instances": {"old-box": USE}, "pools": pools, "profiles": profiles}
    found = make_host("lab03", seen_at=clock.now(), surveyed_at=clock.now(), survey=survey)
    make_instance(make_user("liwei"), found, "gamma", observed=USE | {"addresses": ["10.0.0.7"], "gpus": []})
    make_host("lab04")
    client.login_as(make_admin("root1"))
    return found


def names(client: Client, query: str = "") -> list[str]:
    return client.get(f"/admin/machines{query}").texts("//tbody/tr/th")


def test_all_are_listed_with_what_they_use(client: Client, lab: Host) -> None:
    page = client.get(client.get("/").link("All machines"))
    assert page.texts("//tbody/tr/th") == ["gamma", "old-box"]
    row = page.texts("//tbody/tr")[1]
    for words in ("Running", "not of Berth", "lab03", "Debian", "1.5", "2.0 GiB", "3.0 GiB", "10.0.0.9", "card"):
        assert words in row
    assert "2 machines" in page.text


def test_a_disk_that_is_nearly_full_is_marked(client: Client, lab: Host) -> None:
    """Berth's: of those that somebody made by hand, its size is not Berth's to say."""

    def marked() -> list[bool]:
        return ["Disk nearly full" in row for row in client.get("/admin/machines").texts("//tbody/tr")]

    assert marked() == [False, False]
    assert "Disk nearly full" not in client.get("/admin/machines").text
    machine("gamma").observed = USE | {"disk": 49 << 30}
    lab.survey = lab.survey | {"instances": {"old-box": USE | {"disk": 20 << 30}}}
    db.session.commit()
    assert marked() == [True, False]
    assert names(client, "?state=disk_full") == ["gamma"]
    choice = client.get("/admin/machines").texts("//select[@id='state']/option")
    assert choice == ["Any", "Running", "Disk nearly full"]
    assert "Disk nearly full" in client.get("/admin/machines/lab03/gamma").text
    assert "Disk nearly full" not in client.get("/admin/machines/lab03/old-box").text


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("?q=GAM", ["gamma"]),
        ("?q=10.0.0.9", ["old-box"]),
        ("?q=liwei", ["gamma"]),
        ("?host=lab03", ["gamma", "old-box"]),
        ("?host=lab04", []),
        ("?owner=-", ["old-box"]),
        ("?owner=liwei", ["gamma"]),
        ("?state=running", ["gamma", "old-box"]),
        ("?state=stopped", []),
        ("?q=%25", []),
        ("?page=2", []),
        ("?page=x", ["gamma", "old-box"]),
    ],
)
def test_search_and_filters(client: Client, lab: Host, query: str, expected: list[str]) -> None:
    assert names(client, query) == expected


def test_fifty_a_page_and_as_many_queries_as_for_two(client: Client, lab: Host, count_queries) -> None:
    with count_queries() as few:
        client.get("/admin/machines")
    owner = make_user("chenyu")
    for number in range(60):
        make_instance(owner, lab, f"m{number:02}", observed=USE)
    db.session.commit()
    with count_queries() as many:
        page = client.get("/admin/machines")
    assert len(page.all("//tbody/tr")) == surveys.PAGE
    assert len(many) == len(few) <= 12
    assert len(client.get(page.link("Next page")).all("//tbody/tr")) == 12


def test_one_instance_with_settings_and_its_host(client: Client, lab: Host) -> None:
    page = client.get("/admin/machines/lab03/gamma")
    assert "limits.cpu" in page.text
    assert page.texts("//table[.//caption='Devices']/tbody/tr") == ["root disk path=/ profile default"]
    assert client.get(page.link("Terminal in the browser")).status == 200
    assert page.link("Restart…") == "/machines/gamma/restart"
    assert "Take it over" not in page.buttons()
    below = client.get(page.link("Pools, networks, profiles and images of lab03").partition("#")[0])
    for words in ("pool btrfs 1.0 GiB of 9.0 GiB (11 %)", "root in one can get around it", "of 2 instances"):
        assert words in below.text
    client.submit(page.form("Pause it"))
    assert operations.last(machine("gamma").id).kind == OperationKind.FREEZE
    assert client.get("/admin/machines/lab03/nothing").status == 404
    assert client.get("/admin/machines/lab09/gamma").status == 404


@pytest.mark.parametrize(
    ("origin", "words"),
    [("berth", "Berth itself"), ("hand", "by hand"), ("profile:gpu <b>", "profile gpu <b>"), ("", "not known")],
)
def test_who_put_a_device_there(client: Client, lab: Host, origin: str, words: str) -> None:
    lab.survey = lab.survey | {"instances": {"old-box": USE | {"origins": {"root": origin}}}}
    db.session.commit()
    page = client.get("/admin/machines/lab03/old-box")
    assert page.texts("//table[.//caption='Devices']/tbody/tr") == [f"root disk path=/ {words}"]


@pytest.mark.parametrize("name", ["gamma", "old-box"])  # Berth's, and one that is not
def test_a_log_is_read_out_by_the_hosts_agent(client: Client, lab: Host, woken: list[str], name: str) -> None:
    here = f"/admin/machines/lab03/{name}"
    answer = client.submit(client.get(here).form("Read its console"))
    assert (answer.location, woken) == (f"{here}#logs", ["lab03"])
    waiting = client.get(here)
    assert "Its console Being read" in waiting.text
    assert waiting.all("//*[@id='logs'][@hx-trigger='every 1s']")
    [asked] = readings.waiting(lab.id)
    readings.answer(asked, "line one\n<script>line two")
    db.session.commit()
    page = client.get(here, headers={"HX-Request": "true"})
    assert page.texts("//pre") == ["line one <script>line two"]
    assert not page.all("//*[@hx-trigger]")
    event = db.session.scalars(db.select(AuditEvent).where(AuditEvent.action == "instance.read")).one()
    assert (event.actor, event.target, event.details["what"]) == ("root1", f"instance:{name}", "console")


def test_a_log_that_cannot_be_read_says_why_and_a_silent_host_keeps_nobody_waiting(client: Client, lab: Host) -> None:
    here = "/admin/machines/lab03/gamma"
    client.submit(client.get(here).form("Read LXD's log"))
    readings.answer(readings.waiting(lab.id)[0], error="Read LXD's log of gamma: LXD did not answer in time.")
    lab.seen_at = clock.now() - timedelta(minutes=9)
    readings.ask(make_admin(), lab, "gamma", Readable.CONSOLE)
    db.session.commit()
    page = client.get(here)
    assert "LXD did not answer in time." in page.text
    assert "lab03 reported last 9 minutes ago." in page.text
    assert not page.all("//*[@hx-trigger]")


def test_the_list_as_a_file_by_the_filters_of_the_page(client: Client, lab: Host) -> None:
    lab.survey = lab.survey | {"instances": {"old-box": USE | {"image": "=cmd()"}}}
    db.session.commit()
    whole = client.get(client.get("/admin/machines").link("Download this list (CSV)"))
    assert whole.headers["Content-Type"].startswith("text/csv")
    rows = whole.lines()
    assert [(row["name"], row["owner"]) for row in rows] == [("gamma", "liwei"), ("old-box", "")]
    assert rows[0]["up_since"] == "2026-09-21T14:13:20+00:00"
    assert rows[0]["memory_bytes"] == str(2 << 30)
    assert rows[1]["image"] == "'=cmd()", "no spreadsheet takes it for a formula"
    some = client.get(client.get("/admin/machines?q=10.0.0.9&state=running").link("Download this list (CSV)"))
    assert [row["name"] for row in some.lines()] == ["old-box"]
    for number in range(60):
        make_instance(make_user(f"p{number}"), lab, f"m{number:02}", observed=USE)
    db.session.commit()
    assert len(client.get("/admin/machines/list.csv").body.splitlines()) == 63


def machine(name: str) -> Instance:
    return db.session.scalars(db.select(Instance).where(Instance.name == name).order_by(Instance.id.desc())).first()


def test_an_instance_made_by_hand_is_taken_over(client: Client, lab: Host, woken: list[str]) -> None:
    page = client.get("/admin/machines/lab03/old-box")
    assert "GPUs that were attached by hand (card)" in page.text
    assert "It shares its range of user ids" in page.text
    answer = client.submit(page.form("Take it over").fill(Owner="liwei"))
    assert (answer.location, woken) == ("/machines/old-box", ["lab03"])
    made = machine("old-box")
    assert (db.session.get(User, made.owner_id).username, made.cpus, made.memory_mib, made.disk_gib) == (
        "liwei",
        3,
        6144,
        20,
    )
    operation = operations.last(made.id)
    assert operation.kind == OperationKind.ADOPT
    operations.finish(operation.id, "agent:lab03")
    db.session.commit()
    assert machine("old-box").status == "running"


def test_what_could_not_be_taken_over_is_as_before_and_says_why(client: Client, lab: Host) -> None:
    client.post("/admin/machines/lab03/old-box/adopt", {"owner": "liwei"})
    operations.finish(operations.last(machine("old-box").id).id, "agent:lab03", "Take over old-box: it is gone.")
    db.session.commit()
    assert machine("old-box").deleted_at is not None
    page = client.get("/admin/machines/lab03/old-box")
    assert "The last attempt did not work. Take over old-box: it is gone." in page.text
    assert "Take it over" in page.buttons()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"privileged": True}, "root in it is root on the host"),
        ({"kind": "virtual-machine"}, "is a virtual machine"),
    ],
)
def test_what_berth_does_not_take(
    client: Client, lab: Host, woken: list[str], change: dict[str, object], words: str
) -> None:
    lab.survey = lab.survey | {"instances": {"old-box": USE | change}}
    db.session.commit()
    page = client.get("/admin/machines/lab03/old-box")
    assert words in page.text
    assert "Take it over" not in page.buttons()
    refused = client.post("/admin/machines/lab03/old-box/adopt", {"owner": "liwei"})
    assert refused.status == 422
    assert words in refused.text
    assert (machine("old-box"), woken) == (None, [])


def test_a_name_that_another_host_has_is_refused(client: Client, lab: Host) -> None:
    make_instance(make_user("chenyu"), make_host("lab05"), "old-box")
    page = client.post("/admin/machines/lab03/old-box/adopt", {"owner": "liwei"})
    assert page.status == 422
    assert "The name old-box is taken." in page.text


def test_nobody_else_sees_them(client: Client, lab: Host) -> None:
    client.login_as(make_user("eve"))
    assert "All machines" not in client.get("/").links()
    for url in ("/admin/machines", "/admin/machines/lab03/gamma", "/admin/machines/lab03/old-box"):
        assert client.get(url).status == 403
    assert client.get("/admin/machines/list.csv").status == 403
    assert client.post("/admin/machines/lab03/old-box/adopt", {"owner": "eve"}).status == 403
    assert client.post("/admin/machines/lab03/gamma/read/log").status == 403
    assert readings.waiting(lab.id) == []
    assert machine("old-box") is None
