"""The admin's view of the workstations: what they report, what is offered, what is out of service."""

from __future__ import annotations

from datetime import timedelta

import pytest

from app import clock
from app.extensions import db
from app.models import AuditEvent, Gpu, GpuState
from app.services import bookings
from app.services.claims import Ask
from tests.factories import gpus_of, make_admin, make_host, make_instance, make_user
from tests.page import Client


@pytest.fixture
def woken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hosts whose agents were woken."""
    found: list[str] = []
    monkeypatch.setattr("app.queue.wake", found.append)
    return found


@pytest.fixture
def admin(client: Client) -> Client:
    return client.login_as(make_admin("boss"))


def test_without_hosts_the_page_says_how_to_add_one(admin: Client) -> None:
    page = admin.get("/hosts")
    assert "There is no host yet." in page.text
    assert "berth host add NAME --lxd" in page.text


def test_the_list_shows_what_each_agent_reported(admin: Client) -> None:
    fine = make_host("lab01", seen_at=clock.now())
    make_instance(make_user("liwei"), fine)
    make_host("lab02", gpus=0)
    make_host("lab03", seen_at=clock.now() - timedelta(minutes=7))
    make_host("lab04", seen_at=clock.now(), trouble="Connect to LXD: <refused>")
    make_host("lab05", seen_at=clock.now(), enabled=False)
    page = admin.get("/hosts")
    cards = {name: page.texts(f"//article[@aria-label='{name}']")[0] for name in page.texts("//article/h2")}
    assert list(cards) == ["lab01", "lab02", "lab03", "lab04", "lab05"]
    assert "Reports" in cards["lab01"]
    assert "Free: 4" in cards["lab01"]
    assert "Machines1" in cards["lab01"]
    assert "Never seen" in cards["lab02"]
    assert "lab02 has not reported yet." in cards["lab02"]
    assert "Not reachable" in cards["lab03"]
    assert "lab03 reported last 7 minutes ago." in cards["lab03"]
    assert "Connect to LXD: <refused>" in cards["lab04"]
    assert "Not offered" in cards["lab05"]


def test_a_host_shows_who_has_which_gpu_until_when(admin: Client) -> None:
    host = make_host("lab01", seen_at=clock.now(), pass_at=clock.now(), pass_ms=83, lxd_version="5.0.2")
    user = make_user("liwei", full_name="Li Wei")
    make_instance(user, host, "liwei")
    booking = bookings.create(user, Ask(ends_at=clock.now() + timedelta(hours=2), count=2), 900)
    booking.allocations[0].attached_at = clock.now()
    page = admin.get("/hosts/lab01")
    rows = page.texts("//table[.//caption='GPUs']/tbody/tr")
    assert rows[0].startswith("GPU 0 In use Li Wei, until ")
    assert rows[1].startswith("GPU 1 Booked Li Wei, until ")
    assert rows[2].startswith("GPU 2 Free –")
    assert "took 83 ms" in page.text
    assert page.link("liwei") == "/machines/liwei"


def test_taking_a_gpu_out_says_whose_bookings_are_hit(admin: Client, woken: list[str]) -> None:
    host = make_host("lab01", gpus=1)
    user = make_user("liwei", full_name="Li Wei")
    now = clock.now()
    bookings.create(user, Ask(ends_at=now + timedelta(hours=1)), 900)
    bookings.create(user, Ask(starts_at=now + timedelta(hours=2), ends_at=now + timedelta(hours=3)), 900)
    page = admin.get("/hosts/lab01")
    confirm = admin.get(page.link("Take GPU 0 out of service…"))
    assert "2 bookings still count on it." in confirm.text
    assert len(confirm.texts("//main//li[starts-with(., 'Li Wei')]")) == 2
    assert admin.submit(confirm.form("Take out of service")).location == "/hosts/lab01"
    gpu = gpus_of(host)[0]
    assert gpu.state == GpuState.MAINTENANCE
    assert woken == ["lab01"]
    page = admin.get("/hosts/lab01")
    assert "GPU 0 is out of service." in page.texts("//*[@id='flash']")[0]
    assert "Booked Out of service Li Wei" in page.texts("//tbody/tr")[0], "who has it still has it"
    admin.submit(page.form("Put GPU 0 back"))
    assert gpus_of(host)[0].state == GpuState.IN_SERVICE
    actions = db.session.scalars(db.select(AuditEvent.action).where(AuditEvent.target == f"gpu:{gpu.id}"))
    assert list(actions) == ["gpu.state", "gpu.state"]


def test_a_quarantined_gpu_stands_out_and_can_be_put_back(admin: Client, woken: list[str]) -> None:
    gpu = gpus_of(make_host("lab01"))[1]
    gpu.state = GpuState.QUARANTINE
    assert "Quarantined: 1" in admin.get("/hosts").text
    page = admin.get("/hosts/lab01")
    admin.submit(page.form("Put GPU 1 back"))
    assert db.session.get(Gpu, gpu.id).state == GpuState.IN_SERVICE


def test_offering_and_not(admin: Client) -> None:
    host = make_host("lab01")
    admin.submit(admin.get("/hosts/lab01").form("Stop offering it"))
    db.session.refresh(host)
    assert not host.enabled
    page = admin.get("/hosts/lab01")
    assert "It is not offered for booking." in page.text
    admin.submit(page.form("Offer it for booking"))
    db.session.refresh(host)
    assert host.enabled


def test_check_now_wakes_the_agent_or_says_that_it_cannot(
    admin: Client, woken: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_host("lab01")
    monkeypatch.setattr("app.queue.reachable", lambda: True)
    admin.submit(admin.get("/hosts/lab01").form("Check now"))
    assert woken == ["lab01"]
    assert "lab01 was asked to look now." in admin.get("/hosts/lab01").text
    monkeypatch.setattr("app.queue.reachable", lambda: False)
    admin.submit(admin.get("/hosts/lab01").form("Check now"))
    assert "Valkey does not answer." in admin.get("/hosts/lab01").text


def test_gpus_of_other_hosts_and_of_none(admin: Client, woken: list[str]) -> None:
    make_host("lab01")
    other = gpus_of(make_host("lab02"))[0]
    for path in (f"/hosts/lab01/gpus/{other.id}", "/hosts/lab01/gpus/999999999999999999999", "/hosts/lab09/gpus/1"):
        assert admin.get(path + "/out").status == 404
        assert admin.post(path + "/out").status == 404
        assert admin.post(path + "/back").status == 404
    assert admin.get("/hosts/%3Cscript%3E").status == 404
    db.session.refresh(other)
    assert (other.state, woken) == (GpuState.IN_SERVICE, [])


def test_for_admins_only(client: Client, woken: list[str]) -> None:
    gpu = gpus_of(make_host("lab01"))[0]
    client.login_as(make_user("liwei"))
    gets = ["/hosts", "/hosts/lab01", f"/hosts/lab01/gpus/{gpu.id}/out"]
    posts = [
        "/hosts/lab01/check", "/hosts/lab01/offer",
        f"/hosts/lab01/gpus/{gpu.id}/out", f"/hosts/lab01/gpus/{gpu.id}/back",
    ]  # fmt: skip
    for path in gets:
        assert client.get(path).status == 403, path
    for path in posts:
        assert client.post(path).status == 403, path
    assert woken == []


def test_the_list_asks_little_of_the_database(admin: Client, count_queries) -> None:
    make_host("lab01")

    def cost() -> int:
        with count_queries() as queries:
            admin.get("/hosts")
        return len(queries)

    first = cost()
    for number in range(2, 9):
        make_host(f"lab0{number}")
    assert cost() == first
