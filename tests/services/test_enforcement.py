"""What a pass reads and writes: the same values, whoever changes them meanwhile, and nothing that was not seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from flask import Flask

from app.drivers.base import DeviceSeen, HostSeen, InstanceSeen, Node, Tag, device_name
from app.extensions import db
from app.models import (
    Allocation,
    AuditEvent,
    Booking,
    Gpu,
    Host,
    Instance,
    InstanceStatus,
    LedgerEntry,
    OperationKind,
    User,
)
from app.services import attachments, care, enforcement, instances, operations, quota, recording
from app.services.plan import Desired, Trouble
from tests.factories import attach, gpus_of, make_booking, make_host, make_instance, make_user

NOW = datetime(2026, 11, 24, 4, tzinfo=UTC)
HOUR = timedelta(hours=1)

Freeze = Callable[[datetime], None]


@pytest.fixture
def host(app: Flask, freeze: Freeze) -> Host:
    freeze(NOW)
    return make_host("ws1", gpus=2)


@pytest.fixture
def alice(host: Host) -> User:
    user = make_user("alice")
    make_instance(user, host, "alice")
    return user


@pytest.fixture
def gpu(host: Host) -> Gpu:
    return gpus_of(host)[0]


def book(user: User, gpu: Gpu, start: float = 0, end: float = 1) -> Allocation:
    booking = make_booking(user, [gpu], NOW + start * HOUR, NOW + end * HOUR)
    return db.session.scalars(sa.select(Allocation).where(Allocation.booking_id == booking.id)).one()


def device(gpu: Gpu, tag: Tag | None, node: Node = Node.PRESENT, *, configured: bool = True) -> DeviceSeen:
    return DeviceSeen(device_name(gpu.pci_address), gpu.pci_address, True, node, tag, configured)


def seen(**devices: list[DeviceSeen]) -> HostSeen:
    return HostSeen({name: InstanceSeen(name, "running", False, tuple(own)) for name, own in devices.items()})


def record(host: Host, look: HostSeen, want: Desired | None = None, **errors: tuple[Trouble, str]) -> None:
    want = want or enforcement.desired(host)
    recording.record(host, want, look, {want.wants[0].tag.allocation_id: errors["error"]} if errors else {})
    db.session.flush()


def events(action: str) -> list[tuple[str, str]]:
    query = sa.select(AuditEvent.actor, AuditEvent.target).where(AuditEvent.action == action)
    query = query.order_by(AuditEvent.id)
    return [(actor, target) for actor, target in db.session.execute(query)]


def tag(allocation: Allocation) -> Tag:
    return Tag(allocation.booking_id, allocation.id, int(allocation.ends_at.timestamp()))


def test_who_should_have_what_now_and_when_that_changes(host: Host, alice: User, freeze: Freeze) -> None:
    first, second = gpus_of(host)
    running = book(alice, first, 0, 2)
    book(alice, second, -2, 0)
    book(alice, second, 1, 3)
    found = enforcement.desired(host)
    assert [(want.instance, want.gpu.pci_address, want.tag) for want in found.wants] == [
        ("alice", first.pci_address, tag(running))
    ]
    assert found.next_boundary == NOW + HOUR
    freeze(NOW + HOUR)
    found = enforcement.desired(host)
    assert {want.gpu.pci_address for want in found.wants} == {first.pci_address, second.pci_address}
    assert found.next_boundary == NOW + 2 * HOUR
    freeze(NOW + 3 * HOUR)
    assert (enforcement.desired(host).wants, enforcement.desired(host).next_boundary) == ((), None)
    assert enforcement.desired(make_host("ws2")).wants == ()


def test_a_cancelled_booking_wants_nothing_and_changes_nothing(host: Host, alice: User, gpu: Gpu) -> None:
    allocation = book(alice, gpu, 1, 2)
    booking = db.session.get_one(Booking, allocation.booking_id)
    booking.cancelled_at = booking.settled_at = allocation.released_at = NOW
    db.session.flush()
    found = enforcement.desired(host)
    assert (found.wants, found.next_boundary) == ((), None)


def test_it_goes_into_the_oldest_machine_unless_the_booking_names_one(host: Host, alice: User, gpu: Gpu) -> None:
    second = make_instance(alice, host, "alice-2")
    make_instance(alice, make_host("ws2"), "alice-elsewhere")
    booking = db.session.get_one(Booking, book(alice, gpu).booking_id)
    assert [want.instance for want in enforcement.desired(host).wants] == ["alice"]
    booking.instance_id = second.id
    db.session.flush()
    db.session.expire_all()
    assert [want.instance for want in enforcement.desired(host).wants] == ["alice-2"]
    second.deleted_at = NOW
    db.session.flush()
    db.session.expire_all()
    assert [want.instance for want in enforcement.desired(host).wants] == ["alice"]


def test_nor_does_it_go_into_one_that_is_to_be_deleted_or_never_was(host: Host, alice: User, gpu: Gpu) -> None:
    first = db.session.scalars(sa.select(Instance).where(Instance.name == "alice")).one()
    failed = make_instance(alice, host, "alice-2", status=InstanceStatus.FAILED)
    third = make_instance(alice, host, "alice-3")
    book(alice, gpu)
    first.delete_at = NOW + 24 * HOUR
    assert [want.instance for want in enforcement.desired(host).wants] == ["alice-3"]
    assert list(attachments.by_machine([first, failed, third])) == [third.id]


def test_what_is_booked_stays_where_it_is_when_an_older_machine_is_kept_after_all(
    host: Host, alice: User, gpu: Gpu
) -> None:
    first = db.session.scalars(sa.select(Instance).where(Instance.name == "alice")).one()
    make_instance(alice, host, "alice-2")
    first.delete_at = NOW + 24 * HOUR
    book(alice, gpu)
    care.keep(alice, first)
    db.session.expire_all()
    assert [want.instance for want in enforcement.desired(host).wants] == ["alice-2"]


def test_nor_does_it_leave_for_an_older_one_that_is_made_at_last(host: Host, alice: User, gpu: Gpu) -> None:
    first = db.session.scalars(sa.select(Instance).where(Instance.name == "alice")).one()
    make_instance(alice, host, "alice-2")
    first.status = InstanceStatus.FAILED
    operation = instances.request(None, first, OperationKind.CREATE)
    book(alice, gpu)
    operations.finish(operation.id, "agent:ws1")
    db.session.expire_all()
    assert [want.instance for want in enforcement.desired(host).wants] == ["alice-2"]


def test_attached_is_what_was_seen_in_that_machine(host: Host, alice: User, gpu: Gpu, freeze: Freeze) -> None:
    allocation = book(alice, gpu)
    record(host, seen(alice=[]))
    assert (allocation.attached_at, allocation.trouble) == (None, Trouble.NO_NODE)
    record(host, seen(alice=[device(gpu, tag(allocation), Node.ABSENT)]))
    assert (allocation.attached_at, allocation.trouble) == (None, Trouble.NO_NODE)
    record(host, seen(alice=[], bob=[device(gpu, tag(allocation))]))
    assert allocation.attached_at is None, "it is in the wrong machine, whatever its tag says"
    freeze(NOW + HOUR / 2)
    record(host, seen(alice=[device(gpu, tag(allocation))]))
    assert (allocation.attached_at, allocation.trouble, allocation.trouble_at) == (NOW + HOUR / 2, "", None)
    freeze(NOW + HOUR * 0.6)
    record(host, seen(alice=[device(gpu, tag(allocation))]))
    assert allocation.attached_at == NOW + HOUR / 2
    assert events("gpu.attached") == [("agent:ws1", f"booking:{allocation.booking_id}")]


def test_since_when_only_its_owner_keeps_a_gpu_away_is_written_down_once(
    host: Host, alice: User, gpu: Gpu, freeze: Freeze
) -> None:
    allocation = book(alice, gpu)
    recording.could_not_look(host, enforcement.desired(host), "no route")
    assert allocation.ready_at is None
    stopped = seen(alice=[])
    stopped = replace(stopped, instances={n: replace(one, status="stopped") for n, one in stopped.instances.items()})
    for hours in (0.2, 0.3):
        freeze(NOW + HOUR * hours)
        record(host, stopped)
    recording.could_not_look(host, enforcement.desired(host), "no route")
    freeze(NOW + HOUR * 0.4)
    record(host, seen(alice=[device(gpu, tag(allocation))]))
    assert (allocation.ready_at, allocation.attached_at) == (NOW + HOUR * 0.2, NOW + HOUR * 0.4)


def test_a_gpu_that_is_in_counts_though_its_tag_could_not_be_renewed(host: Host, alice: User, gpu: Gpu) -> None:
    allocation = book(alice, gpu)
    old = Tag(1, 1, 1)
    record(host, seen(alice=[device(gpu, old)]), error=(Trouble.ERROR, "busy"))
    assert (allocation.attached_at, allocation.trouble) == (NOW, "")


def test_trouble_keeps_its_moment_while_it_stays_the_same(host: Host, alice: User, gpu: Gpu, freeze: Freeze) -> None:
    allocation = book(alice, gpu)
    record(host, seen(alice=[]), error=(Trouble.ERROR, "x" * 900))
    freeze(NOW + HOUR / 2)
    record(host, seen(alice=[]), error=(Trouble.ERROR, "x" * 900))
    assert (allocation.trouble_at, len(allocation.trouble_text)) == (NOW, 500)
    record(host, HostSeen())
    assert (allocation.trouble, allocation.trouble_text, allocation.trouble_at) == ("missing", "", NOW + HOUR / 2)


OVER = Tag(1, 1, 1)


@pytest.mark.parametrize(
    ("kind", "gone"),
    [
        ("nothing", True),
        ("its own device", False),
        ("its own device elsewhere", False),
        ("a device that says nothing", False),
        ("a bare node", False),
        ("somebody else's", True),
    ],
)
def test_detached_is_what_is_seen_nowhere(
    host: Host, alice: User, gpu: Gpu, freeze: Freeze, kind: str, gone: bool
) -> None:
    allocation = book(alice, gpu)
    record(host, seen(alice=[device(gpu, tag(allocation))]))
    freeze(NOW + HOUR)
    look = {
        "nothing": seen(alice=[]),
        "its own device": seen(alice=[device(gpu, tag(allocation), Node.UNKNOWN)]),
        "its own device elsewhere": seen(alice=[], bob=[device(gpu, tag(allocation))]),
        "a device that says nothing": seen(alice=[device(gpu, None)]),
        "a bare node": seen(alice=[device(gpu, None, configured=False)]),
        "somebody else's": seen(alice=[], bob=[device(gpu, Tag(99, 99, 1))]),
    }[kind]
    for _ in range(2):
        record(host, look)
    assert (allocation.detached_at == NOW + HOUR) == gone
    assert len(events("gpu.detached")) == gone


def test_what_was_never_attached_is_not_detached(host: Host, alice: User, gpu: Gpu, freeze: Freeze) -> None:
    book(alice, gpu)
    freeze(NOW + HOUR)
    record(host, seen(alice=[]))
    assert events("gpu.detached") == []


def test_what_changed_since_the_pass_began_is_charged_as_it_is(
    host: Host, alice: User, gpu: Gpu, freeze: Freeze
) -> None:
    allocation = book(alice, gpu, 0, 4)
    want = enforcement.desired(host)
    assert want.wants
    attach(allocation.booking)
    early = {"end": NOW + HOUR, "id": allocation.booking_id}
    for table, key in (("bookings", "id"), ("allocations", "booking_id")):  # by another process, so to say
        db.session.execute(sa.text(f"UPDATE {table} SET ends_at = :end WHERE {key} = :id"), early)
    freeze(NOW + 2 * HOUR)
    assert recording.settle_ended(host) == 1
    settled = db.session.scalars(sa.select(LedgerEntry.amount).where(LedgerEntry.kind == "settle")).all()
    assert settled == [-3600]


def test_the_first_pass_to_record_counts(host: Host, alice: User, gpu: Gpu) -> None:
    allocation = book(alice, gpu)
    want = enforcement.desired(host)
    earlier = NOW - timedelta(seconds=3)
    db.session.execute(
        sa.text("UPDATE allocations SET attached_at = :at WHERE id = :id"), {"at": earlier, "id": allocation.id}
    )
    record(host, seen(alice=[device(gpu, tag(allocation))]), want)
    assert allocation.attached_at == earlier


def test_many_are_settled_in_turns(host: Host, alice: User, gpu: Gpu, freeze: Freeze) -> None:
    for hour in range(5):
        attach(make_booking(alice if hour % 2 else make_user(), [gpu], NOW + hour * HOUR, NOW + (hour + 1) * HOUR))
    freeze(NOW + 10 * HOUR)
    assert [recording.settle_ended(host, limit=3) for _ in range(3)] == [3, 2, 0]
    assert quota.balance(alice.account_id or 0).used == 2 * 3600


def test_a_host_that_cannot_be_looked_at_tells_those_who_wait(host: Host, alice: User) -> None:
    first, second = gpus_of(host)
    waiting, running = book(alice, first), book(alice, second)
    running.attached_at = NOW
    recording.could_not_look(host, enforcement.desired(host), "no route\n" * 100)
    assert (waiting.trouble, running.trouble) == (Trouble.UNREACHABLE, "")
    assert len(host.trouble) == 500
