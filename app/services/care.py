"""What a machine's owner does with it beyond switching: another name or size, whether it starts by itself, and
deleting it with some days to change one's mind."""

from __future__ import annotations

from datetime import timedelta

from flask_babel import gettext as _

from app import clock
from app.errors import Conflict, InvalidInput, NotAllowed, RuleRefused
from app.extensions import db
from app.models import Instance, InstanceStatus, Operation, OperationKind, OperationState, Template, TemplateState, User
from app.services import attachments, audit, instances, names, operations, placing, policy

ON = frozenset({InstanceStatus.RUNNING, InstanceStatus.FROZEN})
_SEEN_WITHIN = timedelta(hours=1)  # after the failure: what is missing later had its name again
THERE = frozenset({*ON, InstanceStatus.STOPPED})


def freeze(actor: User, instance: Instance) -> Operation:
    """Pause it: its programs stand still and keep their memory."""
    if instance.status not in ON:
        raise Conflict(_("%(name)s does not run.", name=instance.name), _("Start it first."))
    return instances.request(actor, instance, OperationKind.FREEZE)


def rename(actor: User, instance: Instance, name: str) -> Operation:
    """Give it another name. The database's word on who has the name comes first; the host follows.

    Raises InvalidInput for a bad or taken name, RuleRefused while a booking runs, Conflict while work is under way."""
    require_there(instance)
    if not instances.NAME.fullmatch(name) or names.reserved(name):
        raise InvalidInput(
            _("A machine's name starts with a letter and holds small letters, digits and inner hyphens, 30 at most."),
            field="name",
        )
    if name == instance.name:
        raise InvalidInput(_("That is its name already."), field="name")
    if instances.holds_gpu(instance):  # what guards its GPU goes by the name
        raise RuleRefused(_("A booking with this machine is running."), _("End the booking first."), rule="booked")
    old = instance.name
    ran = instance.status in ON
    operation = instances.request(actor, instance, OperationKind.RENAME, old=old, new=name, ran=ran)
    with names.claiming(name, _("Choose another name.")):
        instance.name = name
    audit.record(actor.username, "instance.renamed", f"instance:{name}", old=old, operation=operation.id)
    return operation


def resize(
    actor: User, instance: Instance, *, cpus: int, memory_gib: int, disk_gib: int, anyway: bool = False
) -> Operation:
    """Set its limits, while it runs too. `anyway`: an admin's, also where its host has no room for what it gets more.

    Raises InvalidInput naming the field that is beyond the rules, RuleRefused."""
    require_there(instance)
    instances.check_size(policy.current(), cpus, memory_gib, disk_gib, as_admin=actor.is_admin)
    memory, disk = _more(instance.memory_mib // 1024, memory_gib), _more(instance.disk_gib, disk_gib)
    pool = instance.observed.get("pool", "")
    placing.require(actor, instance.host, memory_gib=memory, disk_gib=disk, pool=pool, anyway=anyway)
    size = {"cpus": cpus, "memory_mib": memory_gib * 1024, "disk_gib": disk_gib}
    return instances.request(actor, instance, OperationKind.RESIZE, **size)


def _more(now: int, wanted: int) -> int:
    """0 also where there was no limit."""
    return max(0, wanted - now) if now else 0


def rebuild(actor: User, instance: Instance) -> Operation:
    """Make it anew from its image, with /home kept, or go on with that where it failed half-way. Raises RuleRefused
    while a booking runs, Conflict."""
    begun = halfway(instance)
    goes_on = begun is not None and begun.kind == OperationKind.REBUILD
    if goes_on:  # no GPU can be in what is left of it
        return instances.request(actor, instance, OperationKind.REBUILD)
    require_there(instance)
    if instances.holds_gpu(instance):
        raise RuleRefused(_("A booking with this machine is running."), _("End the booking first."), rule="booked")
    if not _has_image(instance):
        refused = _("%(host)s has no image %(image)s.", host=instance.host.name, image=instance.image)
        raise RuleRefused(refused, _("Ask an admin to bring it back."), rule="image")
    return instances.request(actor, instance, OperationKind.REBUILD)


def _has_image(instance: Instance) -> bool:
    """Whether the host still has what the machine was made from."""
    if instance.template_id is None:
        return instance.image in {known["alias"] for known in instance.host.images}
    template = db.session.get_one(Template, instance.template_id)
    return template.retired_at is None and template.state == TemplateState.READY


def set_autostart(actor: User, instance: Instance, autostart: bool) -> None:
    """Whether it is started after a reboot of its host if it ran before."""
    if instance.autostart != autostart:
        instance.autostart = autostart
        db.session.flush()
        audit.record(actor.username, "instance.autostart", f"instance:{instance.name}", autostart=autostart)


def request_delete(actor: User, instance: Instance, *, at_once: bool = False) -> Operation | None:
    """Stop it and delete it for good some days later, or now: an admin may ask for that, and what never was or is not
    there any more, or is in its last days already, has nothing to wait for. None: there was nothing to stop."""
    if at_once and not actor.is_admin:
        raise NotAllowed(_("Only an admin can delete a machine at once."))
    days = policy.current().delete_days
    if at_once or not days or instance.status not in THERE:
        return delete_now(actor, instance)
    if instances.holds_gpu(instance):
        raise RuleRefused(_("A booking with this machine is running."), _("End the booking first."), rule="booked")
    if instance.delete_at is None:
        instance.delete_at = clock.now() + timedelta(days=days)
        db.session.flush()
        moment = instance.delete_at.isoformat(timespec="seconds")
        audit.record(actor.username, "instance.delete_later", f"instance:{instance.name}", at=moment)
    if instance.status == InstanceStatus.STOPPED:
        return None
    return operations.enqueue(actor, instance, OperationKind.STOP, force=True)


def delete_now(actor: User | None, instance: Instance) -> Operation:
    """Delete it for good, also where a move that failed half-way has brought it. `actor` None: Berth itself.
    Raises RuleRefused while a booking runs, Conflict."""
    begun = halfway(instance)
    away = {"anywhere": True} if begun is not None and begun.kind == OperationKind.MOVE else {}
    return instances.request(actor, instance, OperationKind.DELETE, **away)


def keep(actor: User, instance: Instance) -> None:
    """Change one's mind. Raises Conflict when its deletion has begun."""
    db.session.refresh(instance, ["delete_at"], with_for_update=True)  # or it could begin just now
    newest = operations.last(instance.id)
    if newest is not None and newest.kind == OperationKind.DELETE and newest.state in operations.OPEN:
        raise Conflict(_("%(name)s is being deleted.", name=instance.name))
    if instance.delete_at is not None:
        attachments.stay(instance.owner_id, instance.host_id)
        instance.delete_at = None
        db.session.flush()
        audit.record(actor.username, "instance.kept", f"instance:{instance.name}")


def halfway(instance: Instance) -> Operation | None:
    """The rebuild or move that failed on the way and took a machine's name from it: what is left of the machine on its
    host is called otherwise, and only the same work once more ends that."""
    if instance.status != InstanceStatus.MISSING:
        return None
    kinds = operations.UNNAMING
    newest = operations.last(instance.id, (Operation.kind.in_(kinds)) | (Operation.state == OperationState.DONE))
    if newest is None or newest.state != OperationState.FAILED or not newest.finished_at or not instance.status_at:
        return None
    soon = instance.status_at - newest.finished_at < _SEEN_WITHIN
    return newest if soon or newest.details.get("halfway") else None


def require_there(instance: Instance) -> None:
    """Refuse what needs a machine that its host has. Raises Conflict."""
    if instance.status not in THERE:
        raise Conflict(_("%(name)s is not on its host.", name=instance.name))
