"""The live GPUs: every state in words, what each person may read of it, what asks again, and what it costs."""

import gzip
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.extensions import db
from app.models import Allocation, Booking, Gpu, GpuState, Host, OperationKind, User
from app.services import inventory, operations, samples
from app.services.samples import Now, Part
from tests.factories import gpus_of, make_admin, make_booking, make_gpu, make_host, make_instance, make_user
from tests.page import Client, Page

NOW = datetime(2026, 11, 4, 12, 3, 20, tzinfo=UTC)  # Wednesday 20:03 in the lab
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
AT_WORK = {"utilisation": 83, "memory_used": 12_595, "memory_total": 49_140, "power": 231.4, "power_limit": 300,
           "temperature": 61}  # fmt: skip
STILL = AT_WORK | {"utilisation": 0, "power": 22}


@pytest.fixture(autouse=True)
def _still(freeze: Callable[[datetime], None]) -> None:
    freeze(NOW)


@pytest.fixture
def user(client: Client) -> User:
    person = make_user("liwei", hours=1000)
    client.login_as(person)
    return person


@pytest.fixture
def host() -> Host:
    return make_host("lab02", gpus=8, seen_at=NOW)


def booked(owner: User, gpus: list[Gpu], *, since: timedelta = 2 * HOUR, attached: bool = True) -> Booking:
    booking = make_booking(owner, gpus, NOW - since, NOW + 10 * HOUR)
    if attached:
        changed = db.update(Allocation).where(Allocation.booking_id == booking.id)
        db.session.execute(changed.values(attached_at=NOW - since))
    return booking


def seen(gpu: Gpu, values: dict[str, Any], *processes: dict[str, Any], ago: int = 4, trouble: str = "") -> None:
    now = Now(gpu.pci_address, NOW - timedelta(seconds=ago), values, processes, trouble)
    samples.show(inventory.host_of(gpu.host_id).name, [now])


def process(instance: str, booking: int = 0, name: str = "train.py", **values: Any) -> dict[str, Any]:
    known = {"pid": 4242, "memory": 12_288, "utilisation": 80}
    return known | {"instance": instance, "booking": booking, "name": name} | values


def minutes(gpu: Gpu, booking: Booking, shares: list[int | None]) -> None:
    """The last whole minutes, the newest last; None: no sample."""
    first = NOW.replace(second=0) - len(shares) * MINUTE
    parts = [
        Part(gpu.pci_address, first + at * MINUTE, booking.id, "gamma", 60_000, share * 600, 0)
        for at, share in enumerate(shares)
        if share is not None
    ]
    samples.deliver(gpu.host_id, f"batch-{gpu.id}", parts)


def row(page: Page, number: int, host: str = "lab02") -> str:
    xpath = f"//section[contains(., '{host}')]//tr[th[. = 'GPU {number}']]"
    return page.texts(xpath)[0]


def test_every_state_has_its_word(client: Client, user: User, host: Host) -> None:
    gpus, other = gpus_of(host), make_user("chen-yu")
    make_instance(user, host, "gamma")
    at_work = booked(user, gpus[:1])
    seen(gpus[0], AT_WORK, process("gamma", at_work.id))
    waits = booked(other, gpus[1:2], since=14 * MINUTE, attached=False)
    seen(gpus[1], STILL)
    idle = booked(other, gpus[2:3])
    seen(gpus[2], STILL)
    minutes(gpus[2], idle, [90, 80] + [0] * 35)
    seen(gpus[3], AT_WORK, process("by-hand"))
    make_booking(user, gpus[4:5], NOW + HOUR, NOW + 2 * HOUR)
    seen(gpus[4], STILL, ago=200)
    seen(gpus[5], {}, trouble="GPU_IS_LOST")
    gpus[6].state, gpus[7].state = GpuState.QUARANTINE, GpuState.MAINTENANCE
    page = client.get("/live")
    assert "You, until Thu 5 Nov 06:03" in row(page, 0)
    for word in ("In use", "83 %", "12.3 of 48 GiB", "231 of 300 W", "61 °C", "train.py · 12.0 GiB · 80 %"):
        assert word in row(page, 0), word
    assert "Booked, not attached for 14 min" in row(page, 1)
    assert "Idle 35 min" in row(page, 2)
    assert "12.3 of 48 GiB held" in row(page, 2)
    assert "Used without booking" in row(page, 3)
    assert "1 program of others" in row(page, 3)
    assert "by-hand" not in page.body
    assert "Free until Wed 21:03" in row(page, 4)
    assert "No data since Wed 20:00" in row(page, 4)
    assert "0 %" not in row(page, 4)
    assert "no data" in row(page, 4)
    assert "Free" in row(page, 5)
    assert "Cannot be read" in row(page, 5)
    assert "GPU_IS_LOST" not in page.body, "why is for admins"
    assert "Quarantined" in row(page, 6)
    assert "Out of service" in row(page, 7)
    assert "Never measured" in row(page, 7)
    assert page.texts("//tbody//th") == [f"GPU {number}" for number in (3, 6, 1, 2, 0, 4, 5, 7)]  # attention first
    counts = "1 used without booking 1 in use 1 idle 1 booked, not attached 2 free 1 out of service 1 quarantined"
    assert page.texts("//p[@class='counts']") == [f"{counts} 4 no data"]
    assert "As of 20:03:20" in page.text
    assert waits.id


def test_a_gpu_that_was_put_into_another_slot_is_told_from_what_it_was(client: Client, user: User, host: Host) -> None:
    """What is gone keeps its number."""
    gpus_of(host)[1].state = GpuState.MAINTENANCE
    make_gpu(host, minor=1, pci_address="0000:0f:00.0")
    make_gpu(make_host("lab03", gpus=0), minor=2)
    page = client.get("/live?open=lab02&open=lab03")
    names = page.texts("//section[contains(., 'lab02')]//tbody//th")
    assert [name for name in names if name.startswith("GPU 1")] == ["GPU 1 (0000:02:00.0)", "GPU 1 (0000:0f:00.0)"]
    assert {name for name in names if not name.startswith("GPU 1")} == {f"GPU {n}" for n in (0, 2, 3, 4, 5, 6, 7)}


def test_what_is_wrong_with_a_gpu_is_said(client: Client, host: Host) -> None:
    gpus = gpus_of(host)
    seen(gpus[0], AT_WORK | {"throttle": "power, heat, hardware", "ecc_errors": 2})
    seen(gpus[1], AT_WORK | {"throttle": "hardware", "ecc_errors": 0})
    seen(gpus[2], AT_WORK | {"throttle": "power"})
    seen(gpus[3], {}, trouble="GPU is lost")
    seen(gpus[4], {}, ago=200, trouble="GPU is lost")
    client.login_as(make_admin("root-admin"))
    page = client.get("/live")
    for word in ("Slowed down by heat", "2 memory errors", "231 of 300 W, at its limit"):
        assert word in row(page, 0)
    assert "Slowed down by its hardware" in row(page, 1)
    assert "memory errors" not in row(page, 1)
    assert "Slowed" not in row(page, 2)
    assert "Cannot be read: GPU is lost" in row(page, 3)
    assert "No data since Wed 20:00" in row(page, 4), "nobody has looked since"


def test_of_a_gpu_that_is_split_up_its_parts_count(client: Client, user: User, host: Host) -> None:
    still = {"memory_used": 100, "memory_total": 49_140, "mig": 7}
    for gpu, used in zip(gpus_of(host), (2, 0), strict=False):
        booking = booked(user, [gpu])
        seen(gpu, still | {"mig_in_use": used})
        minutes(gpu, booking, [0] * 30)
    page = client.get("/live")
    assert "2 of 7 parts" in row(page, 0)
    assert "In use" in row(page, 0)
    assert "0 of 7 parts" in row(page, 1)
    assert "Idle 30 min" in row(page, 1)


def test_what_is_free_is_booked_from_here(client: Client, user: User, host: Host) -> None:
    gpus = gpus_of(host)
    make_booking(user, gpus[:1], NOW.replace(second=0) + HOUR, NOW + 2 * HOUR)
    page = client.get("/live")
    form = client.get(page.link("Book GPU 0 on lab02")).form("Check").values
    chosen = [form["gpu"]] if isinstance(form["gpu"], str) else form["gpu"]
    assert (chosen, form["end_time"]) == ([str(gpus[0].id)], "21:00")  # on the grid, before the next one begins


def test_programs_are_named_to_those_whose_they_are(client: Client, user: User, host: Host) -> None:
    gpus = gpus_of(host)
    make_instance(user, host, "gamma")
    mine = booked(user, gpus[:1])
    theirs = booked(make_user("chen-yu"), gpus[1:2])
    seen(gpus[0], AT_WORK, process("gamma", mine.id, "mine.py"), process("delta", 0, "sneaky"), process("", 0, "Xorg"))
    seen(gpus[1], AT_WORK, process("delta", theirs.id, "<b>hush</b>", memory=None, utilisation=None))
    page = client.get("/live")
    assert "mine.py · 12.0 GiB · 80 % 2 programs of others" in row(page, 0)
    for secret in ("hush", "sneaky", "Xorg", "delta", "4242"):
        assert secret not in page.body
    client.login_as(make_admin())
    page = client.get("/live")
    assert "sneaky · 12.0 GiB · 80 % (delta, without a booking, PID 4242)" in row(page, 0)
    assert "Xorg · 12.0 GiB · 80 % (the host itself, PID 4242)" in row(page, 0)
    assert "<b>hush</b> (delta, PID 4242)" in row(page, 1)
    assert not page.all("//td/b")


def test_what_the_host_computes_on_is_not_free(client: Client, user: User, host: Host) -> None:
    seen(gpus_of(host)[0], AT_WORK, process("", 0, "miner", computes=True))
    seen(gpus_of(host)[1], STILL, process("", 0, "Xorg", computes=False))
    page = client.get("/live")
    assert "Used without booking" in row(page, 0)
    assert "Free" in row(page, 1)
    assert not page.all("//a[@aria-label='Book GPU 0 on lab02']")
    assert page.link("Book GPU 1 on lab02")
    client.login_as(make_admin())
    assert "Hosts (1 alarm)" in client.get("/live").links()


def test_idle_is_measured_and_not_guessed(client: Client, user: User, host: Host) -> None:
    gpus = gpus_of(host)
    wanted = [
        ([50] + [0] * 9, STILL, "In use"),  # not long enough
        ([50] + [None] * 40 + [0] * 12, STILL, "Idle 12 min"),  # what was not measured is not idle
        ([50] + [0] * 30, AT_WORK, "In use"),  # at work again since a moment
        ([50] + [0] * 30, {}, "In use"),  # not known
        ([0] * 119, STILL, "Idle 1 h 59 min"),  # since it was attached
    ]
    for number, (shares, values, _word) in enumerate(wanted):
        booking = booked(user, gpus[number : number + 1])
        minutes(gpus[number], booking, shares)
        seen(gpus[number], values)
    page = client.get("/live")
    for number, (_shares, _values, word) in enumerate(wanted):
        assert word in row(page, number), number


def test_the_last_hour_is_a_line_with_holes(client: Client, user: User, host: Host) -> None:
    gpu = gpus_of(host)[0]
    seen(gpu, AT_WORK)
    minutes(gpu, booked(user, [gpu]), [50] * 10 + [None] * 3 + [100])
    (label,) = client.get("/live").all("//tr[th[. = 'GPU 0']]//svg/@aria-label")
    assert label == "Last hour: 55 % busy, at most 100 %; no data for 49 minutes"
    line, unknown = client.get("/live").all("//tr[th[. = 'GPU 0']]//svg/path/@d")
    assert (line.count("M"), unknown) == (2, "M0 22.0H92M112 22.0H118")
    assert line.endswith("M118 2.0L120 2.0")
    assert client.get("/live").all("//tr[th[. = 'GPU 1']]//svg/@aria-label") == ["No data in the last hour"]


def test_it_asks_again_only_for_what_is_new_and_nothing_moves(client: Client, user: User, host: Host, freeze) -> None:
    gpus = gpus_of(host)
    seen(gpus[3], STILL, process("by-hand"))
    page = client.get("/live")
    (again,) = page.all("//*[@data-live]/@hx-get")
    order = page.texts("//tbody//th")
    assert client.get(again, htmx=True).status == 204
    freeze(NOW + timedelta(seconds=59))
    assert client.get(again, htmx=True).status == 204
    seen(gpus[3], STILL, ago=-10)  # the intruder is gone: opened now, the page would begin with GPU 0
    part = client.get(again, htmx=True)
    assert part.status == 200
    assert part.texts("//tbody//th") == order
    assert "Used without booking" not in part.text
    assert client.get("/live").texts("//tbody//th")[0] == "GPU 0"
    freeze(NOW + timedelta(seconds=119))
    (again,) = part.all("//*[@data-live]/@hx-get")
    assert client.get(again, htmx=True).status == 200, "the time has gone on"
    booked(user, gpus[:1])


def test_hosts_open_one_by_one_and_cost_little(client: Client, user: User, count_queries: Callable[[], Any]) -> None:
    hosts = [make_host(f"lab{number:02}", gpus=8, seen_at=NOW) for number in range(1, 9)]
    for host in hosts:
        for gpu in gpus_of(host):
            booking = booked(user, [gpu])
            seen(gpu, STILL, process("gamma", booking.id))
            minutes(gpu, booking, [50] * 30 + [0] * 30)
    page = client.get("/live")
    assert page.texts("//p[@class='counts']") == ["8 idle"] * 8
    assert not page.all("//table")
    opened = client.get(page.link("lab02"))
    assert len(opened.all("//tbody/tr")) == 8
    assert client.get(opened.link("lab02")).all("//table") == []
    every = "/live?" + "&".join(f"open={host.name}" for host in hosts)
    for address, raw, packed in ((every, 130_000, 12_000), ("/live?open=lab02", 30_000, 6_000)):
        with count_queries() as queries:
            page = client.get(address)
        assert len([query for query in queries if "SAVEPOINT" not in query.upper()]) <= 6
        sizes = len(page.body.encode()), len(gzip.compress(page.body.encode(), 6))
        print(address[:20], *sizes)
        assert sizes[0] <= raw
        assert sizes[1] <= packed
    with count_queries() as queries:
        assert client.get(page.all("//*[@data-live]/@hx-get")[0], htmx=True).status == 204
    assert len([query for query in queries if "SAVEPOINT" not in query.upper()]) <= 3


def test_ones_machine_and_ones_booking_show_their_gpus(client: Client, user: User, host: Host, freeze) -> None:
    gpus = gpus_of(host)
    machine = make_instance(user, host, "gamma")
    booking = booked(user, gpus[2:4])
    seen(gpus[2], AT_WORK, process("gamma", booking.id, "mine.py"))
    booked(make_user("chen-yu"), gpus[:1])
    for where in ("/machines", f"/machines/{machine.name}", f"/bookings/{booking.id}"):
        page = client.get(where)
        assert page.texts("//section[@id='own-gpus']//tbody//th") == ["GPU 2", "GPU 3"]
        assert "mine.py" in page.text
        (again,) = page.all("//*[@data-live]/@hx-get")
        assert client.get(again, htmx=True).status == 204
        assert client.get(again.partition("?")[0]).texts("//tbody//th") == ["GPU 2", "GPU 3"]
    freeze(NOW + 11 * HOUR)
    client.login_as(user)
    part = client.get(again, htmx=True)
    assert (part.all("//@hx-get"), part.all("//tr")) == ([], [])
    assert "No GPU now." in client.get("/live/machines/gamma").text


def test_a_bookings_gpus_come_when_it_begins_and_go_when_it_ends(
    client: Client, user: User, host: Host, freeze: Callable[[datetime], None]
) -> None:
    booking = make_booking(user, gpus_of(host)[:1], NOW + HOUR, NOW + 2 * HOUR)

    def again(page: Page) -> Page:
        """What the page that is open asks for."""
        return client.get(page.all("//*[@id='status']/@hx-get")[0], htmx=True)

    page = client.get(f"/bookings/{booking.id}")
    assert not page.all("//*[@data-live]")
    assert not again(page).all("//*[@id='own-gpus']"), "nothing has changed"
    freeze(NOW + HOUR)
    client.login_as(user)
    page = again(page)
    assert page.all("//*[@id='own-gpus']/@hx-swap-oob") == ["true"]
    assert len(page.all("//*[@id='own-gpus']/@hx-get")) == 1
    assert not page.all("//*[@id='own-gpus']//tr"), "not attached yet"
    db.session.execute(db.update(Allocation).values(attached_at=NOW + HOUR))
    page = again(page)
    assert page.texts("//section[@id='own-gpus']//tbody//th") == ["GPU 0"]
    freeze(NOW + 2 * HOUR)
    client.login_as(user)
    page = again(page)
    assert page.all("//*[@id='own-gpus']"), "empty"
    assert not page.all("//*[@id='own-gpus']//tr | //*[@id='own-gpus']/@hx-get")
    db.session.execute(db.update(Allocation).values(detached_at=NOW + 2 * HOUR))
    assert not again(page).all("//@hx-get")


def test_after_a_restart_a_machines_gpus_are_there_again(client: Client, user: User, host: Host) -> None:
    machine = make_instance(user, host, "gamma")
    booked(user, gpus_of(host)[:1])
    for where in ("/machines", "/machines/gamma"):
        operation = operations.enqueue(user, machine, OperationKind.RESTART)
        page = client.get(where)
        assert len(page.all("//*[@id='own-gpus']")) == 1, "the place for them"
        assert not page.all("//*[@data-live]")
        (again,) = page.all("//*[@id='machines']/@hx-get")
        assert not client.get(again, htmx=True).all("//*[@id='own-gpus']")
        operations.finish(operation.id, "agent:lab02")
        last = client.get(again, htmx=True)
        assert last.all("//*[@id='own-gpus']/@hx-swap-oob") == ["true"]
        assert last.texts("//section[@id='own-gpus']//tbody//th") == ["GPU 0"]
        assert client.get(last.all("//@hx-get")[0], htmx=True).status == 204


def test_a_host_without_gpus_is_one(client: Client, user: User) -> None:
    make_host("bare", gpus=0)
    page = client.get("/live")
    assert "LXD finds no GPUs on bare." in page.text
    assert "no hosts yet" not in page.text
    assert "LXD finds no GPUs on bare." not in page.links(), "it has nothing to look at for others than admins"
    make_host("lab02", gpus=1)
    client.login_as(make_admin())
    page = client.get("/live")
    assert page.link("LXD finds no GPUs on bare.") == "/hosts/bare"
    assert row(page, 0)
    assert user.id


def test_odd_addresses_and_nothing_there(client: Client, user: User) -> None:
    assert "There are no hosts yet" in client.get("/live").text
    host = make_host("lab03", gpus=1)
    host.enabled = False
    for odd in ("open=" + "x" * 500, "open=nope&open=nope", "order=1,x,,99999999999999", "mark=x.y"):
        page = client.get(f"/live?{odd}")
        assert "Not offered" in row(page, 0, "lab03")
    assert "lab03 has not reported yet." in page.text
    assert user.id
