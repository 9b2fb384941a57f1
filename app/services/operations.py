"""Long work on people's machines: queued by a service, done by the host's agent, with progress to watch.

At most one is open for a machine. Each may be repeated: an agent that starts takes up what the last one left.
"""

from __future__ import annotations

from collections.abc import Collection

from flask_babel import gettext as _
from sqlalchemy import func, select
from sqlalchemy.orm import joinedload

from app import clock
from app.errors import Conflict
from app.extensions import db
from app.models import Instance, InstanceStatus, Operation, OperationKind, OperationState, User
from app.services import audit

STEPS = ("queued", "preparing", "copying", "starting", "stopping", "deleting", "checking", "done", "failed")
OPEN = (OperationState.QUEUED, OperationState.RUNNING)


def enqueue(actor: User | None, instance: Instance, kind: OperationKind, **details: bool) -> Operation:
    """Queue work on a machine. Raises Conflict while other work on it is under way."""
    under_way = select(Operation.id).where(Operation.instance_id == instance.id, Operation.state.in_(OPEN))
    db.session.execute(select(Instance.id).where(Instance.id == instance.id).with_for_update())
    if db.session.scalar(under_way) is not None:
        raise Conflict(_("Other work on %(name)s is still under way.", name=instance.name), _("Wait until it is done."))
    operation = Operation(
        kind=kind,
        host_id=instance.host_id,
        instance_id=instance.id,
        user_id=actor.id if actor else None,
        details=details,
    )
    db.session.add(operation)
    db.session.flush()
    who = actor.username if actor else audit.SYSTEM
    audit.record(who, f"instance.{kind}.asked", f"instance:{instance.name}", operation=operation.id)
    return operation


def last(instance_id: int) -> Operation | None:
    """The newest operation on a machine."""
    query = select(Operation).where(Operation.instance_id == instance_id).order_by(Operation.id.desc()).limit(1)
    return db.session.scalar(query)


def latest(instance_ids: Collection[int]) -> dict[int, Operation]:
    """The newest operation on each of these machines, by the machine's id."""
    newest = (
        select(func.max(Operation.id)).where(Operation.instance_id.in_(instance_ids)).group_by(Operation.instance_id)
    )
    query = select(Operation).where(Operation.id.in_(newest))
    return {operation.instance_id: operation for operation in db.session.scalars(query)}


def outcome(operation_id: int) -> tuple[OperationState, str]:
    """How far an operation is by now, and its error if it failed."""
    query = select(Operation.state, Operation.error).where(Operation.id == operation_id)
    state, error = db.session.execute(query).one()
    return OperationState(state), error


def claim(host_id: int) -> Operation | None:
    """Take the host's oldest queued operation, with its instance, owner and host; None when there is none."""
    query = (
        select(Operation)
        .where(Operation.host_id == host_id, Operation.state == OperationState.QUEUED)
        .options(joinedload(Operation.instance).joinedload(Instance.owner))
        .order_by(Operation.id)
        .limit(1)
        .with_for_update(of=Operation, skip_locked=True)
    )
    operation = db.session.scalar(query)
    if operation is not None:
        operation.state, operation.started_at = OperationState.RUNNING, clock.now()
        db.session.flush()
    return operation


def requeue_interrupted(host_id: int) -> int:
    """At an agent's start: what was running when the last one died is to be done again (each step may be repeated)."""
    query = select(Operation).where(Operation.host_id == host_id, Operation.state == OperationState.RUNNING)
    found = list(db.session.scalars(query))
    for operation in found:
        operation.state = OperationState.QUEUED
    db.session.flush()
    return len(found)


def progress(operation_id: int, step: str, percent: int) -> None:
    """Note how far an operation is."""
    operation = db.session.get(Operation, operation_id)
    if operation is not None:
        operation.step, operation.percent = step, percent
        db.session.flush()


def finish(operation_id: int, actor: str, error: str = "") -> None:
    """Close an operation and write what it did to the machine's record."""
    query = select(Operation).where(Operation.id == operation_id).options(joinedload(Operation.instance))
    operation = db.session.scalar(query)
    if operation is None or operation.state not in OPEN:
        return
    now, instance = clock.now(), operation.instance
    operation.finished_at, operation.error = now, error
    operation.state = OperationState.FAILED if error else OperationState.DONE
    operation.step, operation.percent = ("failed", operation.percent) if error else ("done", 100)
    if error:
        if operation.kind == OperationKind.CREATE:
            instance.status = InstanceStatus.FAILED
    elif operation.kind == OperationKind.DELETE:
        instance.deleted_at = now
    else:
        stopped = operation.kind == OperationKind.STOP
        instance.status = InstanceStatus.STOPPED if stopped else InstanceStatus.RUNNING
    instance.status_at = now
    db.session.flush()
    action = f"instance.{operation.kind}" + (".failed" if error else "")
    audit.record(actor, action, f"instance:{instance.name}", key=f"operation:{operation.id}", error=error[:500])
