"""The admin's view of the workstations: what they report, what is offered, what is out of service."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from app import clock
from app.extensions import db
from app.models import AuditEvent, Gpu, GpuState, LibraryChoice
from app.services import bookings
from app.services.claims import Ask
from app.services.quarantine import quarantine
from tests.factories import gpus_of, make_admin, make_booking, make_host, make_instance, make_user
from tests.page import Client


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


def test_a_quarantined_gpu_stands_out_and_is_released_knowingly(admin: Client, woken: list[str]) -> None:
    host = make_host("lab01", seen_at=clock.now())
    gpu = gpus_of(host)[1]
    quarantine("agent:lab01", gpu, "<b>python</b> (7) does not end")
    page = admin.get("/hosts")
    assert "Quarantined: 1" in page.text
    assert "Hosts (1 alarm)" in page.links()
    page = admin.get("/hosts/lab01")
    (note,) = page.texts("//*[contains(@class, 'note refused')][not(@hidden)]")
    assert note.startswith("GPU 1 is in quarantine since ")
    assert "<b>python</b> (7) does not end" in note
    assert "Put GPU 1 back" not in page.buttons()
    confirm = admin.get(page.link("Release GPU 1…"))
    assert confirm.h1 == "Release GPU 1 of lab01?"
    assert "fuser -v /dev/nvidia1" in confirm.text
    assert db.session.get_one(Gpu, gpu.id).state == GpuState.QUARANTINE, "looking changes nothing"
    form = confirm.form("Release GPU 1").fill(**{"How you made sure that it is free (optional)": "x" * 300})
    page = admin.follow(admin.submit(form))
    assert "GPU 1 is released from quarantine" in page.texts("//*[@id='flash']")[0]
    assert db.session.get_one(Gpu, gpu.id).state == GpuState.IN_SERVICE
    assert woken == ["lab01"]
    (event,) = db.session.scalars(db.select(AuditEvent).where(AuditEvent.action == "gpu.released"))
    assert (event.actor, event.details["how"]) == ("boss", "x" * 200)
    assert "Hosts" in page.links()
    rows = page.texts("//table[.//caption='Events']/tbody/tr")
    assert [rows[0].startswith("GPU released from quarantine "), rows[1].startswith("GPU put into quarantine ")] == [
        True
    ] * 2


def test_releasing_what_is_not_in_quarantine_does_nothing(admin: Client, woken: list[str]) -> None:
    gpu = gpus_of(make_host("lab01"))[1]
    path = f"/hosts/lab01/gpus/{gpu.id}"
    page = admin.get(f"{path}/release")
    assert "GPU 1 is not in quarantine." in page.text
    assert "Release GPU 1" not in page.buttons()
    assert "is not in quarantine" in admin.follow(admin.post(f"{path}/release")).text
    quarantine("agent:lab01", gpu, "why")
    assert admin.post(f"{path}/back").location == f"{path}/release", "an old page's button does not go past it"
    assert db.session.get_one(Gpu, gpu.id).state == GpuState.QUARANTINE
    assert woken == []


def test_a_host_that_nobody_has_looked_at(admin: Client) -> None:
    make_host("lab01")
    page = admin.get("/hosts/lab01")
    assert "no agent has looked at this host" in page.text
    assert "Not looked for yet." in page.text
    assert "Not made yet." in page.text
    assert "no program without a booking was found" in page.text
    assert page.texts("//table[.//caption='GPUs']/tbody/tr")[0].startswith("GPU 0 Free – not looked yet")


def test_what_is_booked_against_what_was_seen(admin: Client) -> None:
    host, user = make_host("lab01", seen_at=clock.now()), make_user("liwei", full_name="Li Wei")
    booking = bookings.create(user, Ask(ends_at=clock.now() + timedelta(hours=2), count=2), 900)
    first, second, third, fourth = (gpu.pci_address for gpu in gpus_of(host))
    host.observed = observed(
        line(first, "attaching", booking=booking.id, instance="liwei-1"),
        line(second, "doubled", "bob", "carol", booking=booking.id + 1, instance="other"),
        line(third, "evicting", held_by=["mallory"]),
        line(fourth, "free"),
        drift=[
            drift("missing", "liwei-1", first, "stopped"), drift("stale", "bob", third, "over"),
            drift("foreign", "carol", second, "any_gpu", ours=False), drift("new", "carol", "", "unheard-of"),
        ],
    )  # fmt: skip
    page = admin.get("/hosts/lab01")
    rows = page.texts("//table[.//caption='GPUs']/tbody/tr")
    assert rows[0].startswith("GPU 0 Booked Attaching Li Wei, until ")
    assert "(liwei-1) no machine" in rows[0]
    assert rows[1].startswith("GPU 1 Booked In two machines Li Wei")
    assert "other" not in rows[1], "of a booking that is not the one of now"
    assert "bob, carol" in rows[1]
    assert rows[2].startswith("GPU 2 Free Being taken away – mallory")
    assert rows[3].startswith("GPU 3 Free – no machine")
    stays = "It stays. Unless the GPU is out of service, nothing there may use it without a booking."
    any_gpu = "It names no single GPU and may hand over all of them."
    found = page.texts("//h2[.='Differences']/following-sibling::div[1]//tbody/tr")
    assert found == [
        f"Not plugged in liwei-1 {first} The machine is stopped. Berth plugs it in as soon as that is over.",
        f"Not taken away yet bob {third} The booking is over. Berth takes it away at its next look.",
        f"Not from Berth carol {second} {any_gpu} {stays}",
        "new carol unheard-of",
    ]
    assert "Differences4" in admin.get("/hosts").text


def test_programs_are_named_and_those_of_the_host_left_alone(admin: Client) -> None:
    host = make_host("lab01", seen_at=clock.now())
    pci = gpus_of(host)[2].pci_address
    entry = {"pid": 7, "booked": False, "gpus": [pci]}
    host.observed = observed() | {
        "on_host": [entry | {"instance": "", "name": "Xorg", "left_alone": True}],
        "intruders": [
            entry | {"instance": "mallory", "name": "<i>kworker", "left_alone": False},
            entry | {"instance": "carol", "name": "python", "left_alone": True, "gpus": [pci, "0000:ff:00.0"]},
        ],
        "doubts": [{"instance": "dave", "why": "it is frozen"}],
        "left_out": 3,
    }
    page = admin.get("/hosts/lab01")
    rows = page.texts("//table[.//caption='Programs']/tbody/tr")
    assert rows == [
        "<i>kworker 7 mallory GPU 2 It is asked to end, and then ended.",
        "python 7 carol GPU 2, 0000:ff:00.0 Left alone: the GPU is out of service.",
        "Xorg 7 GPU 2",
    ]
    assert "berth holders lab01 --end PID" in page.text
    assert "dave could not be looked at: it is frozen" in page.text
    assert "3 entries are left out" in page.text
    assert "None: exactly what is booked is plugged in." in page.text


def test_the_check_up_says_what_helps(admin: Client) -> None:
    host = make_host("lab01", seen_at=clock.now(), checked_at=clock.now())
    assert "Nothing was found." in admin.get("/hosts/lab01").text
    host.findings = [
        {"level": "bad", "what": "LXD 5.0.2 is old", "detail": "CVE-2025-54289", "fix": "snap refresh lxd"},
        {"level": "odd", "what": "Secure boot is on", "detail": "", "fix": ""},
    ]
    page = admin.get("/hosts/lab01")
    cards = page.texts("//h2[.='Check-up']/following-sibling::*[contains(@class, 'card')]")
    assert cards == [
        "To be mended LXD 5.0.2 is old CVE-2025-54289What helps: snap refresh lxd",
        "Worth a look Secure boot is on",
    ]


def observed(*gpus: dict[str, Any], drift: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """A report as services.drift makes it."""
    rest: dict[str, Any] = {"scanned": True, "left_out": 0, "on_host": [], "intruders": [], "doubts": []}
    return {"gpus": list(gpus), "drift": list(drift), **rest}


def line(
    pci: str, code: str, *seen: str, booking: int = 0, instance: str = "", held_by: Sequence[str] = ()
) -> dict[str, Any]:
    want = {"instance": instance, "booking": booking} if booking else None
    return {"pci": pci, "minor": 0, "want": want, "seen": list(seen), "held_by": list(held_by), "code": code}


def drift(kind: str, instance: str, pci: str, reason: str, *, ours: bool = True) -> dict[str, Any]:
    return {"kind": kind, "instance": instance, "device": "", "pci": pci, "ours": ours, "reason": reason}


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


def test_one_that_is_not_offered_is_removed_unless_it_is_on_record(admin: Client) -> None:
    make_host("lab03")
    assert "Remove…" not in admin.get("/hosts/lab03").text, "first it is not offered any more"
    admin.submit(admin.get("/hosts/lab03").form("Stop offering it"))
    page = admin.get(admin.get("/hosts/lab03").link("Remove…"))
    assert page.h1 == "Remove lab03?"
    confirm = page.form("Remove it")
    assert admin.submit(confirm).location == "/hosts"
    assert "lab03 is removed." in admin.get("/hosts").text
    assert admin.submit(confirm).status == 404
    host = make_host("lab04", enabled=False)
    make_booking(make_user(), gpus_of(host), clock.now(), clock.now() + timedelta(hours=1))
    answer = admin.submit(admin.get("/hosts/lab04/remove").form("Remove it"))
    assert answer.location == "/hosts/lab04"
    assert "lab04 is on record, with bookings" in admin.get("/hosts/lab04").text


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
        assert admin.get(path + "/release").status == 404
        assert admin.post(path + "/release").status == 404
        assert admin.post(path + "/out").status == 404
        assert admin.post(path + "/back").status == 404
    assert admin.get("/hosts/%3Cscript%3E").status == 404
    db.session.refresh(other)
    assert (other.state, woken) == (GpuState.IN_SERVICE, [])


def test_for_admins_only(client: Client, woken: list[str]) -> None:
    gpu = gpus_of(make_host("lab01"))[0]
    client.login_as(make_user("liwei"))
    gets = ["/hosts", "/hosts/lab01", *(f"/hosts/lab01/gpus/{gpu.id}/{what}" for what in ("out", "release"))]
    posts = [
        "/hosts/lab01/check", "/hosts/lab01/offer",
        f"/hosts/lab01/gpus/{gpu.id}/out", f"/hosts/lab01/gpus/{gpu.id}/back",
        f"/hosts/lab01/gpus/{gpu.id}/release",
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


SEEN = {"way": "mount", "why": "no_tools", "version": "580.95.05", "cdi": False, "choice": "auto"}


def test_how_nvidias_libraries_come_and_why(admin: Client) -> None:
    make_host("lab01", seen_at=clock.now(), libraries_seen=SEEN)
    make_host("lab02", seen_at=clock.now(), libraries_seen=SEEN | {"way": "nvidia.runtime", "why": "best", "cdi": True})
    make_host("lab03", seen_at=clock.now())
    page = admin.get("/hosts/lab01")
    assert "New machines have them read-only at /usr/local/nvidia." in page.text
    assert "Why this wayNVIDIA's container tools, which" in page.text
    assert "Driver580.95.05" in page.text
    assert "CDI" not in page.text
    page = admin.get("/hosts/lab02")
    assert "Why this wayNVIDIA's container tools reach the driver." in page.text
    assert "Berth does not use that" in page.text
    assert "The host's agent has not said yet." in admin.get("/hosts/lab03").text


def test_an_admin_chooses_how_they_come(admin: Client, woken: list[str]) -> None:
    host = make_host("lab01", seen_at=clock.now(), libraries_seen=SEEN)
    form = admin.get("/hosts/lab01").form("Use this way")
    form.fill(**{"How they come into new machines": "runtime"})
    answer = admin.submit(form)
    assert (answer.location, woken) == ("/hosts/lab01#libraries", ["lab01"])
    db.session.expire_all()
    assert host.libraries == LibraryChoice.RUNTIME
    event = db.session.scalars(db.select(AuditEvent).where(AuditEvent.action == "host.libraries")).one()
    assert (event.actor, event.target, event.details) == ("boss", "host:lab01", {"choice": "runtime"})
    assert "Another way was chosen just now." in admin.get("/hosts/lab01").text
    host.libraries_seen = SEEN | {"choice": "runtime"}
    db.session.commit()
    page = admin.get("/hosts/lab01")
    assert "What was chosen, this host cannot do now: By nvidia.runtime" in page.text
    assert admin.post("/hosts/lab01/libraries", {"libraries": "cdi"}).status == 422


def test_a_pool_that_is_nearly_full_stands_out(admin: Client) -> None:
    finding = {"what": "storage pool pool", "detail": "96 % of 900 GiB in use", "fix": "Delete snapshots"}
    make_host("lab01", seen_at=clock.now(), checked_at=clock.now(), findings=[finding | {"level": "bad"}])
    page = admin.get("/hosts")
    assert "Hosts (1 alarm)" in page.links()
    assert page.link("What helps") == "/hosts/lab01#check-up"
    page = admin.get("/hosts/lab01")
    assert page.texts("//*[@id='host-state']//*[contains(@class, 'note refused')]")[0].startswith(
        "A storage pool is nearly"
    )
    assert "What helps: Delete snapshots" in page.text


def test_what_lxd_has_besides_machines(admin: Client) -> None:
    pools = [
        {"name": "fast", "driver": "zfs", "used": 1 << 30, "total": 4 << 30},
        {"name": "plain", "driver": "dir", "used": None, "total": None},
        {"name": "odd", "driver": "cephobject", "used": None, "total": None},
    ]
    networks = [
        {"name": "berthbr0", "kind": "bridge", "managed": True, "ours": True, "subnet": "10.80.0.1/24", "used_by": 3},
        {"name": "lxdbr0", "kind": "bridge", "managed": True, "ours": False, "subnet": "", "used_by": 0},
        {"name": "eth0", "kind": "physical", "managed": False, "ours": False, "subnet": "", "used_by": 0},
    ]
    make_host("lab01", surveyed_at=clock.now(), survey={"pools": pools, "networks": networks})
    page = admin.get("/hosts/lab01")
    assert page.texts("//table[.//caption='Storage pools']/tbody/tr") == [
        "fast zfs 1.0 GiB of 4.0 GiB (25 %) keeps machines to their disk's size",
        "plain dir not known of not known does not keep machines to their disk's size",
        "odd cephobject not known of not known not known whether it keeps machines to their disk's size",
    ]
    assert page.texts("//table[.//caption='Networks']/tbody/tr") == [
        "berthbr0 bridge 10.80.0.1/24 Berth's, for machines 3",
        "lxdbr0 bridge – LXD's 0",
        "eth0 physical – the host's own 0",
    ]
