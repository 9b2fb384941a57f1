"""Passes over a simulated host, with a real database: what is done, what is recorded, and what a crash leaves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from sqlalchemy.exc import OperationalError

from app.drivers.base import GiveUp, HostUnreachable, TryAgain
from app.extensions import db
from app.models import AuditEvent, Booking, EntryKind, Host, LedgerEntry, User
from app.services import changes, inventory, quota
from app.services.plan import Trouble
from tests.factories import make_booking, make_instance, make_user
from tests.workers.house import NOW, House
from workers import reconciler

HOUR = timedelta(hours=1)

Freeze = Callable[[datetime], None]


def audited(action: str) -> int:
    return len(list(db.session.scalars(db.select(AuditEvent).where(AuditEvent.action == action))))


def entries(booking: Booking) -> Counter[str]:
    kinds = db.session.scalars(db.select(LedgerEntry.kind).where(LedgerEntry.booking_id == booking.id))
    return Counter(EntryKind(kind).value for kind in kinds)


def test_attached_at_the_start_and_gone_at_the_end(house: House, freeze: Freeze) -> None:
    booking = make_booking(house.alice, house.gpus[1:2], NOW + HOUR, NOW + 2 * HOUR)
    result = house.run()
    assert result.ok
    assert result.next_boundary == NOW + HOUR
    assert house.inside("alice") == set()

    freeze(NOW + HOUR)
    assert house.run().next_boundary == NOW + 2 * HOUR
    assert house.inside("alice") == {"0000:02:00.0"}
    assert house.inside("bob") == set()
    assert house.allocation(booking).attached_at == NOW + HOUR
    assert house.allocation(booking).detached_at is None

    freeze(NOW + 2 * HOUR)
    house.run()
    assert house.inside("alice") == set()
    assert house.allocation(booking).detached_at == NOW + 2 * HOUR
    assert entries(booking) == {"hold": 1, "release": 1, "settle": 1}
    assert (audited("gpu.attached"), audited("gpu.detached"), audited("booking.settled")) == (1, 1, 1)


def test_what_it_cost_is_charged_to_the_second(house: House, freeze: Freeze) -> None:
    booking = make_booking(house.alice, house.gpus[:2], NOW, NOW + HOUR)
    house.run()
    freeze(NOW + HOUR)
    house.run()
    used = db.session.scalars(
        db.select(LedgerEntry.amount).where(LedgerEntry.booking_id == booking.id, LedgerEntry.kind == EntryKind.SETTLE)
    ).one()
    assert used == -2 * 3600
    assert db.session.get(User, house.alice.id).account_id is not None


def test_one_person_follows_another_on_the_same_gpu(house: House, freeze: Freeze) -> None:
    first = make_booking(house.alice, house.gpus[:1], NOW, NOW + HOUR)
    second = make_booking(house.bob, house.gpus[:1], NOW + HOUR, NOW + 2 * HOUR)
    house.run()
    before = len(house.lxd.calls())
    freeze(NOW + HOUR)
    house.run()
    verbs = [call for call in house.lxd.calls()[before:] if "attach" in call or "detach" in call]
    assert [verb.split()[0] if isinstance(verb, str) else verb for verb in verbs] == ["detach", "attach"]
    assert (house.inside("alice"), house.inside("bob")) == (set(), {"0000:01:00.0"})
    assert house.allocation(first).detached_at == NOW + HOUR
    assert house.allocation(second).attached_at == NOW + HOUR


def test_who_follows_on_their_own_booking_keeps_the_gpu(house: House, freeze: Freeze) -> None:
    first = make_booking(house.alice, house.gpus[:1], NOW, NOW + HOUR)
    second = make_booking(house.alice, house.gpus[:1], NOW + HOUR, NOW + 2 * HOUR)
    house.run()
    freeze(NOW + HOUR)
    result = house.run()
    assert result.plan.detaches == ()
    assert house.inside("alice") == {"0000:01:00.0"}
    assert house.allocation(first).detached_at == NOW + HOUR
    assert house.allocation(second).attached_at == NOW + HOUR


def test_a_stopped_machine_gets_its_gpu_when_it_runs(house: House) -> None:
    booking = make_booking(house.alice, house.gpus[:1], NOW, NOW + HOUR)
    house.lxd.stop("alice")
    house.run()
    assert house.allocation(booking).trouble == Trouble.STOPPED
    assert house.allocation(booking).attached_at is None
    house.lxd.start("alice")
    house.run()
    assert house.allocation(booking).trouble == Trouble.NONE
    assert house.inside("alice") == {"0000:01:00.0"}


def test_no_machine_at_all_is_said(house: House) -> None:
    carol = make_user("carol")
    booking = make_booking(carol, house.gpus[:1], NOW, NOW + HOUR)
    house.run()
    assert house.allocation(booking).trouble == Trouble.NO_MACHINE


def test_a_privileged_machine_gets_none(house: House) -> None:
    carol = make_user("carol")
    make_instance(carol, house.host, "carol")
    house.lxd.add_instance("carol", owner="carol", privileged=True)
    booking = make_booking(carol, house.gpus[:1], NOW, NOW + HOUR)
    house.run()
    assert house.inside("carol") == set()
    assert house.allocation(booking).trouble == Trouble.PRIVILEGED


def test_an_attach_that_left_no_node_is_not_called_attached(house: House) -> None:
    booking = make_booking(house.alice, house.gpus[:1], NOW, NOW + HOUR)
    house.lxd.lie(attach=True)
    house.run()
    assert house.allocation(booking).attached_at is None
    assert house.allocation(booking).trouble == Trouble.NO_NODE
    house.lxd.lie()
    house.run()
    assert house.allocation(booking).attached_at == NOW
    assert house.allocation(booking).trouble == Trouble.NONE


def test_after_a_detach_that_left_the_node_nobody_gets_the_gpu(house: House, freeze: Freeze) -> None:
    make_booking(house.alice, house.gpus[:1], NOW, NOW + HOUR)
    second = make_booking(house.bob, house.gpus[:1], NOW + HOUR, NOW + 2 * HOUR)
    house.run()
    freeze(NOW + HOUR)
    house.lxd.lie(detach=True)
    house.run()
    assert house.inside("bob") == set()
    assert house.allocation(second).trouble == Trouble.HELD
    house.lxd.lie()
    house.run()
    assert (house.inside("alice"), house.inside("bob")) == (set(), {"0000:01:00.0"})


def test_a_failed_detach_is_tried_again_and_not_recorded_as_done(house: House, freeze: Freeze) -> None:
    booking = make_booking(house.alice, house.gpus[:1], NOW, NOW + HOUR)
    house.run()
    freeze(NOW + HOUR)
    house.lxd.fail_next("detach", TryAgain("Detach", "busy"))
    house.run()
    assert house.allocation(booking).detached_at is None
    assert house.inside("alice") == {"0000:01:00.0"}
    house.run()
    assert house.allocation(booking).detached_at == NOW + HOUR


def test_an_unreachable_host_is_not_an_empty_one(house: House) -> None:
    booking = make_booking(house.alice, house.gpus[:1], NOW, NOW + HOUR)
    house.lxd.unreachable()
    result = house.run()
    assert not result.ok
    assert house.allocation(booking).trouble == Trouble.UNREACHABLE
    host = db.session.scalars(db.select(Host).where(Host.name == "lab")).one()
    assert host.trouble
    house.lxd.unreachable(False)
    house.run()
    host = db.session.scalars(db.select(Host).where(Host.name == "lab").execution_options(populate_existing=True)).one()
    assert host.trouble == ""
    assert house.inside("alice") == {"0000:01:00.0"}


@pytest.mark.parametrize("again", [False, True], ids=["not at all", "not again"])
def test_the_books_of_what_ended_are_closed_on_a_host_that_cannot_be_looked_at(
    house: House, freeze: Freeze, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    """Else its hours are held for as long as LXD is away, and their owner can do nothing about it."""
    booking = make_booking(house.alice, house.gpus[:1], NOW, NOW + HOUR)
    account_id, gone = house.alice.account_id or 0, HostUnreachable("Connect to LXD", "refused")
    house.lxd.unreachable(not again)
    house.run()
    freeze(NOW + HOUR)
    with monkeypatch.context() as patch:
        if again:
            patch.setattr(reconciler, "_look_again", lambda *_: (_ for _ in ()).throw(gone))
        for _ in range(2):
            assert not house.run().ok
            assert entries(booking) == {"hold": 1, "release": 1, "settle": 1}
    balance = quota.balance(account_id)
    assert (balance.held, balance.used) == (0, 3600 if again else 0), "what could not be given costs nothing"
    house.lxd.unreachable(False)
    assert house.run().ok
    assert (entries(booking), audited("booking.settled")) == ({"hold": 1, "release": 1, "settle": 1}, 1)


def test_given_back_early_it_goes_at_once(house: House, freeze: Freeze) -> None:
    booking = make_booking(house.alice, house.gpus[:1], NOW, NOW + HOUR)
    house.run()
    freeze(NOW + HOUR / 2)
    changes.end_now(house.alice, booking.id)
    house.run()
    assert house.inside("alice") == set()
    assert entries(booking) == {"hold": 1, "release": 2, "settle": 1}
    sums: Counter[str] = Counter()
    for entry in db.session.scalars(db.select(LedgerEntry).where(LedgerEntry.booking_id == booking.id)):
        sums[entry.kind] += entry.amount
    assert sums == {"hold": -3600, "release": 3600, "settle": -1800}


def test_a_foreign_device_is_left_alone(house: House) -> None:
    house.lxd.plug("bob", "byhand", "0000:03:00.0")
    result = house.run()
    assert [item.device for item in result.plan.foreign] == ["byhand"]
    assert result.plan.detaches == ()


@pytest.mark.parametrize("call", range(1, 8))
def test_a_failure_at_any_call_costs_one_pass_and_doubles_nothing(house: House, freeze: Freeze, call: int) -> None:
    first = make_booking(house.alice, house.gpus[:1], NOW, NOW + HOUR)
    second = make_booking(house.bob, house.gpus[:1], NOW + HOUR, NOW + 2 * HOUR)
    house.run()
    freeze(NOW + HOUR)
    house.lxd.fail_next("*", HostUnreachable("any call", "gone"), after=call - 1)
    house.run()
    house.run()
    house.run()
    assert (house.inside("alice"), house.inside("bob")) == (set(), {"0000:01:00.0"})
    assert entries(first) == {"hold": 1, "release": 1, "settle": 1}
    assert entries(second) == {"hold": 1}
    assert (audited("gpu.attached"), audited("gpu.detached"), audited("booking.settled")) == (2, 1, 1)


def test_an_attach_that_can_never_work_says_why(house: House) -> None:
    booking = make_booking(house.alice, house.gpus[:1], NOW, NOW + HOUR)
    house.lxd.fail_next("attach", GiveUp("Attach", "no such device", "Look for it with lspci."))
    house.run()
    assert house.allocation(booking).trouble == Trouble.ERROR
    assert "lspci" in house.allocation(booking).trouble_text


def test_an_attach_that_found_lxd_busy_says_that_it_is_tried_again(house: House) -> None:
    """Nobody has to press anything: which is what work that was asked for once says."""
    booking = make_booking(house.alice, house.gpus[:1], NOW, NOW + HOUR)
    house.lxd.fail_next("attach", TryAgain("Attach", "it is at something else"))
    house.run()
    assert house.allocation(booking).trouble_text == "Attach: it is at something else. It is tried again by itself."
    house.run()
    assert house.inside("alice") == {"0000:01:00.0"}


def test_a_quiet_pass_writes_little_and_asks_lxd_once(house: House, count_queries: Callable[..., object]) -> None:
    make_booking(house.alice, house.gpus[:1], NOW, NOW + HOUR)
    house.run()
    before = len(house.lxd.calls())
    with count_queries() as statements:  # type: ignore[attr-defined]
        house.run()
    assert house.lxd.calls()[before:] == ["observe", "fence"], "once LXD, and the kernel only what changed"
    written = [line for line in statements if not line.lstrip().upper().startswith(("SELECT", "SAVEPOINT", "RELEASE"))]
    assert all("hosts" in line for line in written), written


def test_who_was_ended_without_the_database_is_no_intruder_afterwards(
    house: House, freeze: Freeze, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their own next booking keeps the GPU, and by then nothing ends any more."""
    make_booking(house.alice, house.gpus[:1], NOW, NOW + HOUR)
    make_booking(house.alice, house.gpus[:1], NOW + HOUR, NOW + 2 * HOUR)
    house.run()
    house.kernel.add_process("alice", (195, 0), stubborn=True)
    with monkeypatch.context() as patch:
        patch.setattr(inventory, "host", away)
        house.run()
        freeze(NOW + HOUR + timedelta(seconds=20))
        house.run()
    assert house.kernel.processes() == []
    house.run()
    assert (audited("gpu.process_ended"), audited("gpu.intruder")) == (1, 0)
    assert house.inside("alice") == {"0000:01:00.0"}


def away(_name: str) -> Host:
    raise OperationalError("select", {}, Exception("the server is away"))


def test_without_the_database_what_is_over_ends_and_nothing_begins(
    house: House, freeze: Freeze, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_booking(house.alice, house.gpus[:1], NOW, NOW + HOUR)
    make_booking(house.bob, house.gpus[:1], NOW + HOUR, NOW + 2 * HOUR)
    result = house.run()
    with monkeypatch.context() as patch:
        patch.setattr(inventory, "host", away)
        result = house.run()
        assert not result.ok
        assert result.next_boundary == NOW + HOUR
        assert house.inside("alice") == {"0000:01:00.0"}
        house.kernel.add_process("alice", (195, 0), stubborn=True)
        freeze(NOW + HOUR + timedelta(seconds=20))
        house.run()
        assert (house.inside("alice"), house.inside("bob")) == (set(), set())
        assert house.kernel.processes() == []
    house.run()
    assert audited("gpu.process_ended") == 1, "who was ended meanwhile is on record"
    assert house.inside("bob") == {"0000:01:00.0"}
    assert (audited("gpu.attached"), audited("gpu.detached"), audited("booking.settled")) == (2, 1, 1)
