"""Long work on machines and templates: queued by a service, done by the host's agent, with progress to watch.

At most one is open for each. Each may be repeated: an agent that starts takes up what the last one left.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import InstrumentedAttribute, aliased, joinedload
from sqlalchemy.orm.util import identity_key

from app import clock
from app.errors import Conflict
from app.extensions import db
from app.language import gettext as _
from app.models import (
    Instance,
    InstanceStatus,
    Operation,
    OperationKind,
    OperationState,
    Template,
    TemplateState,
    User,
)
from app.services import attachments, audit, outcomes, ports

OPEN = (OperationState.QUEUED, OperationState.RUNNING)
# A machine is used, and looked after, as ever meanwhile.
QUIET = frozenset({OperationKind.BACKUP})
HEAVY = frozenset(
    {OperationKind.BUILD, OperationKind.BACKUP}
)  # minutes of a host's processor and disk: one at a time there
FROM_IMAGE = (OperationKind.CREATE, OperationKind.REBUILD)  # what a machine's image is needed for
UNNAMING = (OperationKind.REBUILD, OperationKind.MOVE)  # what takes a machine's name from it on the way
LONGEST_LOG = 64_000  # characters; what comes first goes first
# What a machine is after work that went well; the other kinds leave that as it is.
_BECOMES = {
    OperationKind.CREATE: InstanceStatus.RUNNING,
    OperationKind.START: InstanceStatus.RUNNING,
    OperationKind.RESTART: InstanceStatus.RUNNING,
    OperationKind.REBUILD: InstanceStatus.RUNNING,
    OperationKind.STOP: InstanceStatus.STOPPED,
    OperationKind.FREEZE: InstanceStatus.FROZEN,
    OperationKind.MOVE: InstanceStatus.STOPPED,
}


def enqueue(actor: User | None, target: Instance | Template, kind: OperationKind, **details: Any) -> Operation:
    """Queue work on a machine or a template. Raises Conflict while other work on it is under way."""
    table = type(target)
    column = Operation.instance_id if table is Instance else Operation.template_id
    db.session.execute(select(table.id).where(table.id == target.id).with_for_update())
    if db.session.scalar(select(Operation.id).where(column == target.id, Operation.state.in_(OPEN))) is not None:
        raise Conflict(_("Other work on %(name)s is still under way.", name=target.name), _("Wait until it is done."))
    operation = Operation(
        kind=kind,
        host_id=target.host_id,
        user_id=actor.id if actor else None,
        details=details,
        **{column.key: target.id},
    )
    db.session.add(operation)
    db.session.flush()
    who, noun = actor.username if actor else audit.SYSTEM, _noun(target)
    audit.record(who, f"{noun}.{kind}.asked", f"{noun}:{target.name}", operation=operation.id)
    return operation


def _noun(target: Instance | Template) -> str:
    return "instance" if isinstance(target, Instance) else "template"


def last(instance_id: int, *such: ColumnElement[bool]) -> Operation | None:
    """The newest operation on a machine, of `such` ones."""
    query = select(Operation).where(Operation.instance_id == instance_id, *such).order_by(Operation.id.desc()).limit(1)
    return db.session.scalar(query)


def latest(instance_ids: Collection[int]) -> dict[int, Operation]:
    """The newest operation on each of these machines, by the machine's id; they are renewed (see `_at_once`)."""
    newest = (
        select(func.max(Operation.id)).where(Operation.instance_id.in_(instance_ids)).group_by(Operation.instance_id)
    )
    found = _at_once(Instance, instance_ids, Operation.instance_id, Operation.id.in_(newest))
    return {operation.instance_id: operation for operation in found if operation and operation.instance_id}


def last_of_template(template_id: int) -> Operation | None:
    """The newest operation on a template, its log too; the template is renewed (see `_at_once`)."""
    newest = select(func.max(Operation.id)).where(Operation.template_id == template_id).scalar_subquery()
    return next(iter(_at_once(Template, [template_id], Operation.template_id, Operation.id == newest)), None)


def _at_once(
    table: type[Instance | Template], ids: Collection[int], column: Any, newest: ColumnElement[bool]
) -> list[Operation | None]:
    """The newest work on each, and whatever of them was loaded anew, in one statement and so as of one moment: of work
    that is over and a machine from before its end a page would be made that stands still and offers nothing."""
    for number in ids:
        if (loaded := db.session.identity_map.get(identity_key(table, number))) is not None:
            db.session.expire(loaded, table.__mapper__.column_attrs.keys())
    query = select(table, Operation).outerjoin(Operation, (column == table.id) & newest).where(table.id.in_(ids))
    return [operation for _target, operation in db.session.execute(query)]


def outcome(operation_id: int) -> tuple[OperationState, str]:
    """How far an operation is by now, and its error if it failed."""
    query = select(Operation.state, Operation.error).where(Operation.id == operation_id)
    state, error = db.session.execute(query).one()
    return OperationState(state), error


def said(operation_id: int) -> tuple[str, str, int]:
    """An operation's log by now, its step and how many per cent are done."""
    query = select(Operation.log, Operation.step, Operation.percent).where(Operation.id == operation_id)
    log, step, percent = db.session.execute(query).one()
    return log, step, percent


def claim(host_id: int, *, heavy: bool = True) -> Operation | None:
    """Take the host's oldest queued operation, with its machine and owner or its template; None when there is none.
    `heavy`: one of HEAVY may be taken too. An image is removed only when nothing is made from it any more."""
    without = [] if heavy else HEAVY
    # Of heavy work whose machine is to be started first (see upkeep.after_reboot), that need not wait for its turn.
    may = or_(Operation.kind.not_in(without), Operation.details["start"].as_boolean())
    query = (
        select(Operation)
        .where(Operation.host_id == host_id, Operation.state == OperationState.QUEUED, may)
        .where(or_(Operation.kind != OperationKind.DISCARD, ~needing(Operation.template_id)))
        .options(joinedload(Operation.instance).joinedload(Instance.owner), joinedload(Operation.template))
        .order_by(Operation.id)
        .limit(1)
        .with_for_update(of=Operation, skip_locked=True)
    )
    operation = db.session.scalar(query)
    if operation is not None:
        operation.state, operation.started_at = OperationState.RUNNING, clock.now()
        db.session.flush()
    return operation


def needing(template_id: int | InstrumentedAttribute[int | None]) -> ColumnElement[bool]:
    """Whether a machine is being made from a template's image, or is to be, as a condition."""
    making = aliased(Operation)
    query = select(making.id).join(Instance, making.instance_id == Instance.id)
    query = query.where(making.state.in_(OPEN), making.kind.in_(FROM_IMAGE), Instance.template_id == template_id)
    return query.exists()


def requeue_interrupted(host_id: int, held: Collection[int] = ()) -> int:
    """What is running and in nobody's hands is to be done again (each step may be repeated): what an agent that died
    left, or what was claimed and its answer got lost. `held`: the operations that somebody is at."""
    running = (Operation.host_id == host_id, Operation.state == OperationState.RUNNING)
    found = list(db.session.scalars(select(Operation).where(*running, Operation.id.not_in(held))))
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


def note(operation_id: int, text: str) -> None:
    """Add to an operation's log."""
    operation = db.session.get(Operation, operation_id)
    if operation is not None:
        operation.log = (operation.log + text.replace("\0", ""))[-LONGEST_LOG:]
        db.session.flush()


def remember(operation_id: int, **details: Any) -> None:
    """Keep what a later try, or the end, has to know of it."""
    operation = db.session.get(Operation, operation_id)
    if operation is not None:
        operation.details = operation.details | details
        db.session.flush()


def put_back(operation_id: int) -> None:
    """Its machine was started, which was to come first; the work itself is in the queue again."""
    db.session.get_one(Operation, operation_id).state = OperationState.QUEUED
    remember(operation_id, start=False)


def finish(operation_id: int, actor: str, error: str = "") -> None:
    """Close an operation and write what it did to the record of its machine or template."""
    error = error.replace("\0", "")  # a machine may say what it likes; no database takes this
    query = (
        select(Operation)
        .where(Operation.id == operation_id)
        .options(joinedload(Operation.instance), joinedload(Operation.template))
    )
    operation = db.session.scalar(query)
    if operation is None or operation.state not in OPEN:
        return
    operation.finished_at, operation.error = clock.now(), error
    operation.state = OperationState.FAILED if error else OperationState.DONE
    operation.step, operation.percent = ("failed", operation.percent) if error else ("done", 100)
    if operation.kind == OperationKind.PASSWORD:
        operation.details = {}  # the hash is in the machine, or of no use
    target = operation.instance or operation.template
    assert target is not None
    if isinstance(target, Template):
        _template_after(target, operation.kind, error)
    else:
        _instance_after(target, operation.kind, error)
        outcomes.of(operation, target, error)
    db.session.flush()
    if operation.kind == OperationKind.MOVE and operation.details.get("ran") and not error:
        enqueue(None, target, OperationKind.START)  # the new host's agent does that
    noun = _noun(target)
    action = f"{noun}.{operation.kind}" + (".failed" if error else "")
    audit.record(actor, action, f"{noun}:{target.name}", key=f"operation:{operation.id}", error=error[:500])


def _instance_after(instance: Instance, kind: OperationKind, error: str) -> None:
    if error:
        if kind == OperationKind.CREATE:
            instance.status = InstanceStatus.FAILED
    elif kind == OperationKind.DELETE:
        instance.deleted_at = clock.now()
        ports.release(instance.id)
    elif kind == OperationKind.PASSWORD:
        instance.password_at = clock.now()
    else:
        if kind == OperationKind.CREATE and not instance.takes_gpus:  # it does from now on
            attachments.stay(instance.owner_id, instance.host_id)
        instance.status = _BECOMES.get(kind, instance.status)
    instance.status_at = clock.now()


def _template_after(template: Template, kind: OperationKind, error: str) -> None:
    if kind != OperationKind.BUILD:
        return
    template.state = TemplateState.FAILED if error else TemplateState.READY
    template.ready_at = None if error else clock.now()
