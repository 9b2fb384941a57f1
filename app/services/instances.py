"""People's machines: asked for here, made and switched by the host's agent as operations with progress."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import func, or_, select
from sqlalchemy.orm import joinedload

from app import clock
from app.drivers.base import InstanceSpec
from app.errors import Conflict, InvalidInput, NotAllowed, NotFound, RuleRefused
from app.extensions import db
from app.language import gettext as _
from app.models import (
    Allocation,
    Booking,
    Host,
    Instance,
    InstanceStatus,
    Operation,
    OperationKind,
    Policy,
    Template,
    User,
    UserState,
)
from app.services import names, operations, placing, policy, ports, templates

NAME = names.MACHINE_NAME
# What may be asked for of a machine that its host has not, or not whole; what is called like it there may be another's.
_WITHOUT = {
    InstanceStatus.CREATING: {OperationKind.DELETE},
    InstanceStatus.FAILED: {OperationKind.CREATE, OperationKind.DELETE},
    InstanceStatus.MISSING: {OperationKind.DELETE, OperationKind.REBUILD, OperationKind.MOVE},  # see care.halfway
}


def of_user(user: User) -> list[Instance]:
    """A person's machines, with their host, oldest first."""
    query = (
        select(Instance)
        .where(Instance.owner_id == user.id, Instance.deleted_at.is_(None))
        .options(joinedload(Instance.host))
        .order_by(Instance.id)
    )
    return list(db.session.scalars(query))


def everyones(host_id: int | None = None) -> list[Instance]:
    """All machines with host and owner, by name."""
    query = (
        select(Instance)
        .where(Instance.deleted_at.is_(None))
        .options(joinedload(Instance.host), joinedload(Instance.owner))
        .order_by(Instance.name)
    )
    if host_id is not None:
        query = query.where(Instance.host_id == host_id)
    return list(db.session.scalars(query))


def get(user: User | None, name: str) -> Instance:
    """One machine by name, with host and owner; of this person, or any for an admin or the command line (None)."""
    query = (
        select(Instance)
        .where(Instance.name == name, Instance.deleted_at.is_(None))
        .options(joinedload(Instance.host), joinedload(Instance.owner))
    )
    found = db.session.scalar(query)
    if found is None or (user is not None and found.owner_id != user.id and not user.is_admin):
        raise NotFound(_("There is no machine %(name)s of yours.", name=name))
    return found


def possible_owners() -> list[User]:
    """Who may own a machine: everybody who may sign in, by username."""
    return list(db.session.scalars(select(User).where(User.state == UserState.ACTIVE).order_by(User.username)))


def request_create(
    actor: User | None,
    owner: User,
    *,
    name: str,
    host: Host,
    image: str = "",
    template: Template | None = None,
    cpus: int,
    memory_gib: int,
    disk_gib: int,
    anyway: bool = False,
) -> Operation:
    """Ask for a new machine, from a template of the host or one of its images; the host's agent makes it. `actor` None:
    nobody in particular, who may do all. `anyway`: an admin's, also where the host has no room.

    Raises InvalidInput naming the field, NotAllowed, RuleRefused.
    """
    rules = policy.current()
    as_admin = actor is None or actor.is_admin
    if not as_admin:
        _refuse_user(actor, owner, rules)
    if not NAME.fullmatch(name):
        raise InvalidInput(
            _("A machine's name starts with a letter and holds small letters, digits and inner hyphens, 30 at most."),
            field="name",
        )
    if not host.enabled:
        raise InvalidInput(_("%(host)s is out of service.", host=host.name), field="host")
    if template is not None:
        image = _image_of(template, host, owner, as_admin=as_admin)
    elif image not in {known["alias"] for known in host.images}:
        raise InvalidInput(_("%(host)s has no image %(image)s.", host=host.name, image=image), field="image")
    elif not as_admin and templates.has_any(host.id):
        raise InvalidInput(_("On %(host)s machines are made from templates.", host=host.name), field="image")
    check_size(rules, cpus, memory_gib, disk_gib, as_admin=as_admin)
    placing.require(actor, host, memory_gib=memory_gib, disk_gib=disk_gib, anyway=anyway)
    instance = Instance(
        name=name,
        host_id=host.id,
        owner_id=owner.id,
        image=image,
        template_id=template.id if template else None,
        cpus=cpus,
        memory_mib=memory_gib * 1024,
        disk_gib=disk_gib,
    )
    with names.claiming(name, _("Choose another name.")):
        db.session.add(instance)
    ports.reserve(instance, host)
    return operations.enqueue(actor, instance, OperationKind.CREATE)


def request(actor: User | None, instance: Instance, kind: OperationKind, **details: Any) -> Operation:
    """Ask for work on a machine. Raises Conflict where other work is under way or it is not there, RuleRefused."""
    if kind == OperationKind.CREATE and instance.status != InstanceStatus.FAILED:
        raise Conflict(_("This machine exists already."))
    if kind not in _WITHOUT.get(instance.status, {kind}):
        raise Conflict(_("%(name)s is not on its host.", name=instance.name))
    if instance.delete_at is not None and kind not in {OperationKind.DELETE, OperationKind.STOP}:
        raise RuleRefused(
            _("%(name)s is to be deleted.", name=instance.name), _("Keep it first, on its page."), rule="deleted"
        )
    if kind == OperationKind.DELETE and holds_gpu(instance):
        raise RuleRefused(_("A booking with this machine is running."), _("End the booking first."), rule="booked")
    return operations.enqueue(actor, instance, kind, **details)


def spec(instance: Instance) -> InstanceSpec:
    """What the driver needs to make the machine; the owner must be loaded."""
    return InstanceSpec(
        name=instance.name,
        image=instance.image,
        cpus=instance.cpus,
        memory_mib=instance.memory_mib,
        disk_gib=instance.disk_gib,
        owner=instance.owner.username,
    )


def record_statuses(host_id: int, seen: Mapping[tuple[str, str], str], began: datetime) -> None:
    """Write what the host showed of its machines: name and owner's mark → LXD's status, lower case. Missing is also one
    whose name an instance has that is not its owner's. What has been done to a machine since the look began is known
    better than by that, unless a clock was ahead."""
    busy = select(Operation.instance_id).where(
        Operation.host_id == host_id,
        Operation.state.in_(operations.OPEN),
        Operation.kind.not_in(operations.QUIET),
        Operation.instance_id.is_not(None),
    )
    query = select(Instance).where(
        Instance.host_id == host_id,
        Instance.deleted_at.is_(None),
        Instance.status.not_in([InstanceStatus.CREATING, InstanceStatus.FAILED]),
        Instance.id.not_in(busy),
        or_(Instance.status_at.is_(None), Instance.status_at <= began, Instance.status_at > clock.now()),
    )
    for instance in db.session.scalars(query.options(joinedload(Instance.owner))):
        status = seen.get((instance.name, instance.owner.username), "missing")
        if status in {choice.value for choice in InstanceStatus} and status != instance.status:
            instance.status, instance.status_at = InstanceStatus(status), clock.now()
    db.session.flush()


def _image_of(template: Template, host: Host, owner: User, *, as_admin: bool) -> str:
    """The image of a template that may be used."""
    offered = {found.id for found in templates.offered(None if as_admin else owner)}
    if template.host_id != host.id or template.id not in offered:
        brief = _("%(host)s does not offer the template %(name)s.", host=host.name, name=template.name)
        raise InvalidInput(brief, _("Choose another one."), field="image")
    return template.image


def _refuse_user(actor: User | None, owner: User, rules: Policy) -> None:
    if actor is None or actor.id != owner.id:
        raise NotAllowed(_("Only an admin can make a machine for somebody else."))
    if not rules.self_service:
        raise NotAllowed(_("In this lab an admin makes the machines."), _("Ask an admin for one."))
    db.session.execute(select(User.id).where(User.id == owner.id).with_for_update())  # two forms at once: one waits
    query = (
        select(func.count()).select_from(Instance).where(Instance.owner_id == owner.id, Instance.deleted_at.is_(None))
    )
    if (db.session.scalar(query) or 0) >= rules.max_instances:
        raise RuleRefused(
            _("You may have %(max)s machines at most.", max=rules.max_instances),
            _("Delete one you do not need, or ask an admin."),
            rule="max_instances",
            limit=rules.max_instances,
        )


def check_size(rules: Policy, cpus: int, memory_gib: int, disk_gib: int, *, as_admin: bool) -> None:
    """Refuse limits beyond the rules, or for an admin beyond what the rules could be. Raises InvalidInput."""
    for field, value, most in (
        ("cpus", cpus, rules.max_cpus),
        ("memory_gib", memory_gib, rules.max_memory_gib),
        ("disk_gib", disk_gib, rules.max_disk_gib),
    ):
        limit = policy.LIMITS[f"max_{field}"][1] if as_admin else most
        if not 1 <= value <= limit:
            raise InvalidInput(_("This must be a whole number from 1 to %(max)s.", max=limit), field=field)


def holds_gpu(instance: Instance) -> bool:
    """Whether a booking of its owner's runs on its host."""
    now = clock.now()
    query = (
        select(Allocation.id)
        .join(Booking)
        .where(
            Booking.user_id == instance.owner_id,
            Booking.host_id == instance.host_id,
            Allocation.released_at.is_(None),
            Allocation.starts_at <= now,
            Allocation.ends_at > now,
        )
        .limit(1)
    )
    return db.session.scalar(query) is not None
