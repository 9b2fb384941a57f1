"""What a host's agent asks for by itself: snapshots that are due, deletions whose days are over, and machines that ran
before the host was rebooted."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import Select, select
from sqlalchemy.orm import joinedload

from app import clock
from app.errors import DomainError
from app.extensions import db
from app.models import Instance, InstanceStatus, Operation, OperationKind, Schedule
from app.services import care, instances, operations, snapshots

AGAIN = timedelta(hours=1)  # after one that failed
# Work beside which a machine runs on, or that needs it to. The other kinds say themselves whether it runs afterwards.
_RUNS_ON = (
    OperationKind.BACKUP, OperationKind.SNAPSHOT, OperationKind.FORGET,
    OperationKind.RESIZE, OperationKind.PASSWORD, OperationKind.FREEZE, OperationKind.LIBRARIES,
)  # fmt: skip


def due(host_id: int) -> int:
    """Ask for what is due on this host; how much that is."""
    now, asked = clock.now(), 0
    query = _idle(host_id).where((Instance.delete_at <= now) | (Instance.schedule != Schedule.NEVER))
    for instance in db.session.scalars(query).all():
        if instance.delete_at is not None:
            asked += instance.delete_at <= now and _ask(instance, OperationKind.DELETE)
        elif instance.status in {InstanceStatus.RUNNING, InstanceStatus.STOPPED} and snapshots.is_due(instance, now):
            asked += _ask(instance, OperationKind.SNAPSHOT)
    return asked


def after_reboot(host_id: int) -> int:
    """Ask for the machines to be started that ran when the host went down; how many. One on which work is under way is
    started before that is taken up again, and before its turn: a backup may take hours."""
    ran = (Instance.status == InstanceStatus.RUNNING, Instance.autostart, Instance.delete_at.is_(None))
    asked = sum(_ask(one, OperationKind.START) for one in db.session.scalars(_idle(host_id).where(*ran)).all())
    beside = (
        select(Operation.id)
        .join(Operation.instance)
        .where(Operation.host_id == host_id, Operation.state.in_(operations.OPEN), Operation.kind.in_(_RUNS_ON), *ran)
    )
    busy = db.session.scalars(beside).all()
    for operation_id in busy:
        operations.remember(operation_id, start=True)
    return asked + len(busy)


def _ask(instance: Instance, kind: OperationKind) -> bool:
    """Ask, unless that failed a short while ago or is refused now: the next look tries again."""
    newest = operations.last(instance.id)
    if newest is not None and newest.kind == kind and newest.error and clock.now() - newest.created_at < AGAIN:
        return False
    try:
        with db.session.begin_nested():
            if kind == OperationKind.SNAPSHOT:
                snapshots.take(None, instance, auto=True)
            elif kind == OperationKind.DELETE:
                db.session.refresh(instance, ["delete_at"], with_for_update=True)
                if instance.delete_at is None or instance.delete_at > clock.now():  # kept, just now
                    return False
                care.delete_now(None, instance)
            else:
                instances.request(None, instance, kind)
    except DomainError:
        return False
    return True


def _idle(host_id: int) -> Select[Instance]:
    """The host's machines on which no work is under way."""
    busy = select(Operation.instance_id).where(
        Operation.host_id == host_id, Operation.state.in_(operations.OPEN), Operation.instance_id.is_not(None)
    )
    return (
        select(Instance)
        .where(Instance.host_id == host_id, Instance.deleted_at.is_(None), Instance.id.not_in(busy))
        .options(joinedload(Instance.owner), joinedload(Instance.host))
        .order_by(Instance.id)
    )
