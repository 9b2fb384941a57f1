"""Taking a GPU back on a simulated host, with a real database: what is asked, ended, proven, held back and written."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from app.drivers.base import NVIDIA_MAJOR, DriverError, GiveUp, HostSeen, HostUnreachable, TryAgain
from app.drivers.kernel import HOST, How, Scan
from app.extensions import db
from app.models import AuditEvent, Booking, Gpu, GpuState, Instance, Policy
from app.services import alarms, inventory
from app.services.plan import Trouble
from tests.factories import make_booking, make_user
from tests.workers.house import NOW, House
from tests.workers.test_reconciler import audited
from workers import evictor
from workers.aftermath import MOST
from workers.dues import PROVE_WITHIN
from workers.evictor import Evictor
from workers.handover import Hands
from workers.telling import describe

HOUR, GRACE = timedelta(hours=1), timedelta(seconds=20)
CARDS = [(NVIDIA_MAJOR, minor) for minor in range(4)]

Freeze = Callable[[datetime], None]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass is a look too, however soon after the last one; nobody is waited for."""
    monkeypatch.setattr(evictor, "SWEEP_EVERY", 0.0)
    monkeypatch.setattr(evictor, "SHORT", 0.0)


def rules(**values: object) -> None:
    policy = db.session.get_one(Policy, 1)
    for name, value in values.items():
        setattr(policy, name, value)
    db.session.flush()


def state_of(house: House, index: int) -> GpuState:
    query = db.select(Gpu.state).where(Gpu.id == house.gpus[index].id)
    return GpuState(db.session.scalar(query))


def told(action: str) -> list[AuditEvent]:
    return list(db.session.scalars(db.select(AuditEvent).where(AuditEvent.action == action).order_by(AuditEvent.id)))


def booked(house: House, freeze: Freeze, *, follower: bool = False) -> tuple[Booking, Booking | None]:
    """Alice has the first GPU for an hour that is about to end, perhaps Bob has it next; her job holds it."""
    first = make_booking(house.alice, house.gpus[:1], NOW, NOW + HOUR)
    second = make_booking(house.bob, house.gpus[:1], NOW + HOUR, NOW + 2 * HOUR) if follower else None
    house.run()
    return first, second


def raising(error: Exception) -> Callable[..., Any]:
    def fail(*_arguments: object) -> Any:
        raise error

    return fail


# The grace


def test_what_holds_it_has_its_time_after_the_end_when_nobody_waits(house: House, freeze: Freeze) -> None:
    booking, _ = booked(house, freeze)
    polite, stubborn = (
        house.kernel.add_process("alice", CARDS[0]),
        house.kernel.add_process("alice", CARDS[0], stubborn=True),
    )
    freeze(NOW + HOUR)
    result = house.run()
    assert house.inside("alice") == set(), "detached at once"
    assert not house.kernel.may_open("alice", CARDS[0]), "and fenced"
    assert house.kernel.processes() == [stubborn], "asked to end, and not killed"
    assert result.next_boundary == NOW + HOUR + GRACE
    assert house.allocation(booking).detached_at is None
    assert house.allocation(booking).asked_at == NOW + HOUR
    freeze(NOW + HOUR + GRACE)
    house.run()
    assert house.kernel.processes() == []
    assert house.allocation(booking).detached_at == NOW + HOUR + GRACE
    assert [event.details["process"] for event in told("gpu.process_ended")] == [stubborn]
    assert polite != stubborn


def test_with_somebody_waiting_the_time_lies_before_the_end(house: House, freeze: Freeze) -> None:
    booking, second = booked(house, freeze, follower=True)
    assert second is not None
    house.kernel.add_process("alice", CARDS[0], stubborn=True)
    freeze(NOW + HOUR - GRACE - timedelta(seconds=1))
    assert house.run().next_boundary == NOW + HOUR - GRACE
    assert house.allocation(booking).asked_at is None
    freeze(NOW + HOUR - GRACE)
    house.run()
    assert house.allocation(booking).asked_at == NOW + HOUR - GRACE
    assert house.inside("alice") == {"0000:01:00.0"}, "it is hers until the end"
    assert "kill" not in house.lxd.calls()
    freeze(NOW + HOUR)
    house.run()
    assert house.kernel.processes() == []
    assert (house.inside("alice"), house.inside("bob")) == (set(), {"0000:01:00.0"})
    assert house.allocation(booking).detached_at == house.allocation(second).attached_at == NOW + HOUR


def test_it_is_asked_once(house: House, freeze: Freeze) -> None:
    booked(house, freeze)
    house.kernel.add_process("alice", CARDS[0], stubborn=True)
    freeze(NOW + HOUR)
    for _ in range(3):
        house.run()
    assert house.lxd.calls().count("ask") == 1


def test_who_can_be_seen_now_and_then_only_is_asked_once_and_ended(house: House, freeze: Freeze) -> None:
    """Of those who only have it mapped, a look over the whole host sees some."""
    house.run()
    holder = house.kernel.add_process("alice", CARDS[0], how=How.MAPPED, stubborn=True)
    booking, _ = booked(house, freeze)
    for seconds in (0, 1, 2):
        freeze(NOW + HOUR + timedelta(seconds=seconds))
        house.run()
    assert (house.lxd.calls().count("ask"), house.kernel.processes()) == (1, [holder])
    freeze(NOW + HOUR + GRACE)
    house.run()
    assert house.kernel.processes() == []
    assert house.allocation(booking).detached_at is not None


def renamed(house: House) -> None:
    """Alice asks for another name; her host has not come to it yet."""
    machine = db.session.scalars(db.select(Instance).where(Instance.name == "alice")).one()
    machine.name = "alina"
    db.session.flush()


def test_a_machine_that_is_called_otherwise_meanwhile_is_the_same(house: House, freeze: Freeze) -> None:
    booked(house, freeze)
    job = house.kernel.add_process("alice", CARDS[0], stubborn=True)
    freeze(NOW + HOUR)
    house.run()
    renamed(house)
    freeze(NOW + HOUR + timedelta(seconds=5))
    house.run()
    assert house.kernel.processes() == [job], "it has its time"
    freeze(NOW + HOUR + GRACE)
    house.run()
    assert house.kernel.processes() == []
    assert (len(told("gpu.process_ended")), told("gpu.intruder")) == (1, [])


def test_nor_is_it_looked_over_for_that(house: House, freeze: Freeze, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evictor, "SUSPECT_AFTER", 0.0)
    _, second = booked(house, freeze, follower=True)
    assert second is not None
    house.kernel.doubt("alice", "it hides something")
    freeze(NOW + HOUR)
    renamed(house)
    house.run()
    house.run()
    assert house.allocation(second).attached_at is None
    house.kernel.doubt("alice")
    house.run()
    assert house.allocation(second).attached_at == NOW + HOUR


def test_others_processes_live_on(house: House, freeze: Freeze) -> None:
    booked(house, freeze)
    make_booking(house.alice, house.gpus[1:2], NOW, NOW + 3 * HOUR)
    make_booking(house.bob, house.gpus[2:3], NOW, NOW + 3 * HOUR)
    house.run()
    bystanders = [house.kernel.add_process("alice", CARDS[1]), house.kernel.add_process("bob", CARDS[2])]
    both = house.kernel.add_process("alice", CARDS[0], CARDS[1])
    freeze(NOW + HOUR + GRACE)
    house.run()
    assert house.kernel.processes() == bystanders
    assert both not in house.kernel.processes(), "it held the one that ended too"


def test_of_thousands_of_processes_some_are_written_down(house: House, freeze: Freeze) -> None:
    booked(house, freeze)
    for _ in range(MOST + 7):
        house.kernel.add_process("alice", CARDS[0], stubborn=True)
    freeze(NOW + HOUR + GRACE)
    lines = describe(house.run())
    assert house.kernel.processes() == []
    events = told("gpu.process_ended")
    assert [event.details.get("more") for event in events] == [*[None] * (MOST - 1), 7]
    assert len(lines) < MOST


# What cannot be proven


def test_a_process_that_does_not_die_puts_the_gpu_into_quarantine(house: House, freeze: Freeze) -> None:
    booking, second = booked(house, freeze, follower=True)
    assert second is not None
    house.kernel.add_process("alice", CARDS[0], stubborn=True, immortal=True)
    freeze(NOW + HOUR)
    house.run()
    assert house.inside("bob") == set()
    assert house.allocation(second).trouble == Trouble.HELD
    assert state_of(house, 0) == GpuState.IN_SERVICE, "a little time to be proven"
    freeze(NOW + HOUR + PROVE_WITHIN)
    house.run()
    assert state_of(house, 0) == GpuState.QUARANTINE
    assert house.allocation(booking).detached_at is None
    assert audited("gpu.quarantined") == 1


def test_who_comes_next_is_given_another_one(house: House, freeze: Freeze) -> None:
    _, second = booked(house, freeze, follower=True)
    assert second is not None
    house.kernel.add_process("alice", CARDS[0], stubborn=True, immortal=True)
    freeze(NOW + HOUR)
    house.run()
    freeze(NOW + HOUR + PROVE_WITHIN)
    house.run()
    house.run()
    assert house.inside("bob") == {"0000:02:00.0"}
    moved = house.allocation(second)
    assert (moved.gpu_id, moved.instead_of_id) == (house.gpus[1].id, house.gpus[0].id)
    assert moved.trouble == Trouble.NONE


def test_without_another_one_they_are_told_and_get_it_when_it_is_clean(house: House, freeze: Freeze) -> None:
    _, second = booked(house, freeze, follower=True)
    assert second is not None
    make_booking(make_user("carol"), house.gpus[1:], NOW, NOW + 3 * HOUR)
    process = house.kernel.add_process("alice", CARDS[0], stubborn=True, immortal=True)
    freeze(NOW + HOUR)
    house.run()
    freeze(NOW + HOUR + PROVE_WITHIN)
    house.run()
    house.run()
    assert house.allocation(second).trouble == Trouble.QUARANTINED
    assert house.inside("bob") == set()
    with house.kernel._open() as state:  # the system call has returned at last
        state["processes"] = [one for one in state["processes"] if one["pid"] != process]
    house.run()
    assert state_of(house, 0) == GpuState.IN_SERVICE
    assert audited("gpu.released") == 1
    house.run()
    assert house.inside("bob") == {"0000:01:00.0"}


def test_the_machine_is_stopped_where_the_rules_allow_it(house: House, freeze: Freeze) -> None:
    rules(force_stop=True)
    booking, second = booked(house, freeze, follower=True)
    assert second is not None
    house.kernel.add_process("alice", CARDS[0], stubborn=True, immortal=True)
    freeze(NOW + HOUR)
    house.run()
    freeze(NOW + HOUR + PROVE_WITHIN)
    house.run()
    assert house.lxd.observe().instances["alice"].status == "stopped"
    assert house.inside("bob") == {"0000:01:00.0"}
    assert state_of(house, 0) == GpuState.IN_SERVICE
    assert house.allocation(booking).detached_at is not None
    (event,) = told("instance.force_stopped")
    assert event.target == "instance:alice"


def test_a_machines_first_process_is_not_killed(house: House, freeze: Freeze) -> None:
    booked(house, freeze)
    first = house.kernel.add_process("alice", CARDS[0], first=True)
    freeze(NOW + HOUR + GRACE)
    house.run()
    freeze(NOW + HOUR + GRACE + PROVE_WITHIN)
    house.run()
    assert house.kernel.processes() == [first]
    assert state_of(house, 0) == GpuState.QUARANTINE


def test_who_is_only_listed_by_nvml_is_not_killed(house: House, freeze: Freeze) -> None:
    """Its number may be that of one that is gone."""
    booked(house, freeze)
    listed = house.kernel.add_process("alice", CARDS[0], how=How.LISTED)
    freeze(NOW + HOUR + GRACE)
    house.run()
    freeze(NOW + HOUR + GRACE + PROVE_WITHIN)
    house.run()
    assert house.kernel.processes() == [listed]
    assert state_of(house, 0) == GpuState.QUARANTINE


@pytest.mark.parametrize("on", [CARDS[:1], []], ids=["as NVML says", "on which, nobody says"])
def test_who_keeps_memory_by_the_driver_is_ended(
    house: House, freeze: Freeze, monkeypatch: pytest.MonkeyPatch, on: list[tuple[int, int]]
) -> None:
    monkeypatch.setattr(evictor, "SUSPECT_AFTER", 0.0)
    booking, _ = booked(house, freeze)
    house.kernel.add_process("alice", *on, how=How.KEPT)
    freeze(NOW + HOUR + GRACE)
    house.run()
    assert house.kernel.processes() == []
    assert house.allocation(booking).detached_at is not None
    assert state_of(house, 0) == GpuState.IN_SERVICE


def test_who_has_it_open_and_mapped_is_told_of_once(house: House, freeze: Freeze) -> None:
    booked(house, freeze)
    pid = house.kernel.add_process("alice", CARDS[0], stubborn=True)
    house.kernel.add_process("alice", CARDS[0], how=How.MAPPED, pid=pid)
    freeze(NOW + HOUR + GRACE)
    (ended,) = [line for line in describe(house.run()) if line.startswith("ended")]
    assert f"process {pid} of alice" in ended


def test_a_machine_that_cannot_be_looked_at_holds_its_own_gpu_only(house: House, freeze: Freeze) -> None:
    booking, second = booked(house, freeze, follower=True)
    other = make_booking(house.bob, house.gpus[1:2], NOW, NOW + HOUR)
    third = make_booking(house.alice, house.gpus[2:3], NOW + HOUR, NOW + 2 * HOUR)
    assert second is not None
    house.run()
    house.kernel.doubt("alice", "process 7 hangs")
    freeze(NOW + HOUR)
    house.run()
    assert house.allocation(booking).detached_at is None
    assert house.allocation(second).trouble == Trouble.HELD
    assert house.allocation(other).detached_at == NOW + HOUR
    assert house.allocation(third).attached_at == NOW + HOUR
    house.kernel.doubt("alice")
    house.run()
    assert house.allocation(booking).detached_at == NOW + HOUR


def test_descriptors_that_cannot_be_told_count_after_a_moment(
    house: House, freeze: Freeze, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evictor, "SUSPECT_AFTER", 0.0)
    booked(house, freeze)
    suspect = house.kernel.add_process("alice", how=How.IN_FLIGHT)
    innocent = house.kernel.add_process("bob", how=How.REGISTERED)
    freeze(NOW + HOUR + GRACE)
    house.run()
    assert house.kernel.processes() == [innocent]
    assert suspect != innocent
    house.run()
    assert house.hands.evictor._suspected == {}, "who is gone is forgotten"


def test_where_nobody_can_be_looked_for_nobody_is_given_a_gpu_and_the_admins_are_told(
    house: House, freeze: Freeze, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not for once: until somebody mends it."""
    _, second = booked(house, freeze, follower=True)
    assert second is not None
    silence, hangs = timedelta(minutes=1), DriverError("Look", "8 looks hang", "Restart the machines at fault.")
    with monkeypatch.context() as patch:
        patch.setattr(house.kernel, "scan", lambda *_, **__: (_ for _ in ()).throw(hangs))
        for seconds in (0, 1, 2):
            freeze(NOW + HOUR + timedelta(seconds=seconds))
            assert not house.run().ok
            waits = house.allocation(second)
            assert (waits.trouble, waits.trouble_text) == (Trouble.HELD, "Look: 8 looks hang")
            assert waits.trouble_at == NOW + HOUR, "it is one and the same wait"
            said = f"{inventory.UNSEEN}Look: 8 looks hang. Restart the machines at fault."
            assert (inventory.host("lab").trouble, alarms.count(silence)) == (said, 1)
            assert state_of(house, 0) == GpuState.IN_SERVICE, "a little time to be proven"
            patch.setattr(evictor, "SWEEP_EVERY", 60.0)  # a pass that comes between two such looks knows it too
        freeze(NOW + HOUR + PROVE_WITHIN)
        house.run()
        assert state_of(house, 0) == GpuState.QUARANTINE
        assert house.allocation(second).gpu_id == house.gpus[1].id
        house.run()
        assert house.allocation(second).trouble == Trouble.HELD, "nor is the other one known to be free"
        assert [state_of(house, index) for index in (1, 2, 3)] == [GpuState.IN_SERVICE] * 3
        assert house.inside("bob") == set()
    assert house.run().ok
    assert (house.inside("bob"), state_of(house, 0)) == ({"0000:02:00.0"}, GpuState.IN_SERVICE)
    assert (inventory.host("lab").trouble, alarms.count(silence)) == ("", 0)


def test_what_a_pass_did_is_on_record_where_its_look_over_the_whole_host_fails(
    house: House, freeze: Freeze, monkeypatch: pytest.MonkeyPatch
) -> None:
    booking, second = booked(house, freeze, follower=True)
    assert second is not None
    house.kernel.add_process("alice", CARDS[0], stubborn=True)
    scan = house.kernel.scan

    def near_only(*words: Any, thorough: bool) -> Scan:
        if not thorough:
            raise DriverError("Look", "8 looks gave no answer")
        return scan(*words, thorough=thorough)

    monkeypatch.setattr(house.kernel, "scan", near_only)
    freeze(NOW + HOUR)
    result = house.run()
    assert (result.ok, result.trouble) == (False, inventory.host("lab").trouble)
    assert len(told("gpu.process_ended")) == 1
    assert house.allocation(booking).detached_at == house.allocation(second).attached_at == NOW + HOUR
    assert audited("booking.settled") == 1


# The guard


def test_who_holds_a_gpu_without_a_booking_is_asked_and_then_ended(house: House, freeze: Freeze) -> None:
    house.run()
    intruder = house.kernel.add_process("bob", CARDS[3], stubborn=True)
    house.run()
    assert house.kernel.processes() == [intruder]
    freeze(NOW + evictor.INTRUDER_GRACE)
    house.run()
    assert house.kernel.processes() == []
    (event,) = told("gpu.intruder")
    assert event.details["instance"] == "bob"
    assert event.target == f"gpu:{house.gpus[3].id}"
    house.run()
    assert len(told("gpu.intruder")) == 1


def test_a_descriptor_passed_on_blames_nobody_and_ends(house: House, freeze: Freeze) -> None:
    booked(house, freeze)
    house.kernel.add_process("bob", CARDS[0])
    house.run()
    freeze(NOW + evictor.INTRUDER_GRACE)
    house.run()
    assert house.kernel.processes() == []
    assert house.inside("alice") == {"0000:01:00.0"}


def test_the_hosts_own_processes_are_left_alone(house: House, freeze: Freeze) -> None:
    booking, _ = booked(house, freeze)
    display = house.kernel.add_process(HOST, CARDS[0])
    freeze(NOW + HOUR + GRACE)
    house.run()
    assert house.kernel.processes() == [display]
    assert house.allocation(booking).detached_at is not None


def test_what_an_admin_took_out_of_service_is_the_admins(house: House) -> None:
    house.gpus[3].state = GpuState.MAINTENANCE
    db.session.flush()
    mine = house.kernel.add_process("bob", CARDS[3])
    house.run()
    assert house.kernel.processes() == [mine]
    assert house.kernel.may_open("bob", CARDS[3])


def test_what_is_taken_out_of_service_can_be_opened_by_those_who_have_it_booked(house: House) -> None:
    """Also where it was denied to them before."""
    house.run()
    db.session.get_one(Gpu, house.gpus[0].id).state = GpuState.MAINTENANCE
    house.run()
    make_booking(house.alice, house.gpus[:1], NOW, NOW + HOUR)
    house.run()
    assert house.inside("alice") == {"0000:01:00.0"}
    assert house.kernel.may_open("alice", CARDS[0])


def test_the_fence_stands_before_anything_is_booked(house: House) -> None:
    house.run()
    assert not any(house.kernel.may_open(name, card) for name in ("alice", "bob") for card in CARDS)
    make_booking(house.alice, house.gpus[1:2], NOW, NOW + HOUR)
    house.run()
    assert [house.kernel.may_open("alice", card) for card in CARDS] == [False, True, False, False]
    assert not any(house.kernel.may_open("bob", card) for card in CARDS)


# When something is away


def test_without_lxd_the_fence_still_falls_and_holders_end(house: House, freeze: Freeze) -> None:
    booking, _ = booked(house, freeze)
    house.kernel.add_process("alice", CARDS[0], stubborn=True)
    freeze(NOW + HOUR + GRACE)
    house.lxd.fail_next("observe", HostUnreachable("Connect to LXD", "refused"))
    assert not house.run().ok
    assert not house.kernel.may_open("alice", CARDS[0])
    assert house.kernel.processes() == []
    assert len(told("gpu.process_ended")) == 1
    assert house.allocation(booking).detached_at is None, "its device is still in"
    house.run()
    assert house.allocation(booking).detached_at == NOW + HOUR + GRACE


def test_an_agent_that_never_heard_lxd_ends_what_is_over_and_nothing_else(
    house: House, freeze: Freeze, monkeypatch: pytest.MonkeyPatch
) -> None:
    booked(house, freeze)
    make_booking(house.bob, house.gpus[1:2], NOW, NOW + 2 * HOUR)
    house.run()
    over, rightful = house.kernel.add_process("alice", CARDS[0]), house.kernel.add_process("bob", CARDS[1])
    house.hands = Hands(Evictor(house.lxd, house.kernel))  # it was restarted
    monkeypatch.setattr(house.lxd, "observe", raising(HostUnreachable("Connect to LXD", "refused")))
    for seconds in range(0, 40, 4):
        freeze(NOW + HOUR - timedelta(seconds=40 - seconds))
        assert not house.run().ok
        assert house.kernel.processes() == [over, rightful]
    freeze(NOW + HOUR + GRACE)
    house.run()
    assert house.kernel.processes() == [rightful]
    assert not house.kernel.may_open("alice", CARDS[0])
    assert house.kernel.may_open("bob", CARDS[1])
    assert told("gpu.intruder") == told("gpu.quarantined") == []
    house.hands.close()


def test_without_lxd_what_was_just_plugged_in_can_be_opened(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    booking = make_booking(house.alice, house.gpus[:1], NOW, NOW + HOUR)
    observe, gone = house.lxd.observe, HostUnreachable("Connect to LXD", "refused")
    looks = [observe]

    def once(*names: Any) -> HostSeen:
        if not looks:
            raise gone
        return looks.pop()(*names)

    monkeypatch.setattr(house.lxd, "observe", once)
    for _ in range(3):
        assert not house.run().ok
        assert house.kernel.may_open("alice", CARDS[0])
    assert house.allocation(booking).attached_at is None
    monkeypatch.setattr(house.lxd, "observe", observe)
    assert house.run().ok
    assert house.allocation(booking).attached_at == NOW


def test_a_detach_that_fails_ends_the_holders_all_the_same(house: House, freeze: Freeze) -> None:
    booking, _ = booked(house, freeze)
    house.kernel.add_process("alice", CARDS[0], stubborn=True)
    freeze(NOW + HOUR + GRACE)
    house.lxd.fail_next("detach", TryAgain("Detach", "busy"))
    house.run()
    assert house.kernel.processes() == []
    assert house.allocation(booking).detached_at is None
    house.run()
    assert house.allocation(booking).detached_at is not None


@pytest.mark.parametrize(
    "error", [DriverError("kernel", "gone"), GiveUp("any", "thing"), HostUnreachable("LXD", "away")]
)
@pytest.mark.parametrize("call", range(1, 14))
def test_a_failure_at_any_call_of_an_eviction_leads_to_the_same_end(
    house: House, freeze: Freeze, call: int, error: DriverError
) -> None:
    first, second = booked(house, freeze, follower=True)
    assert second is not None
    house.kernel.add_process("alice", CARDS[0], stubborn=True)
    bystander = house.kernel.add_process("bob")
    freeze(NOW + HOUR)
    house.lxd.fail_next("*", error, after=call - 1)
    for _ in range(3):
        house.run()
        assert not (house.inside("alice") and house.inside("bob"))
    assert (house.inside("alice"), house.inside("bob")) == (set(), {"0000:01:00.0"})
    assert house.kernel.processes() == [bystander]
    assert not house.kernel.may_open("alice", CARDS[0])
    assert house.kernel.may_open("bob", CARDS[0])
    assert state_of(house, 0) == GpuState.IN_SERVICE
    for booking in (first, second):
        assert house.allocation(booking).trouble == Trouble.NONE
    assert (audited("gpu.attached"), audited("gpu.detached"), audited("booking.settled")) == (2, 1, 1)
    assert len(told("gpu.process_ended")) == 1, "on record, whatever failed"
