"""What a machine's owner does with it beyond switching: another name or size, whether it starts by itself, and
deleting it with some days to change one's mind."""

from __future__ import annotations

from datetime import timedelta

from app import clock
from app.errors import Conflict, InvalidInput, NotAllowed, RuleRefused
from app.extensions import db
from app.language import gettext as _
from app.models import Instance, InstanceStatus, Operation, OperationKind, OperationState, Template, TemplateState, User
from app.services import attachments, audit, instances, names, operations, outcomes, placing, policy, templates

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


def rebuild(actor: User, instance: Instance, template_id: int | None = None) -> Operation:
    """Make it anew with /home kept, or go on with that where it failed half-way. From this template; None: from
    what it was made from, or from what has that one's name now. Host and owner must be loaded.

    Raises RuleRefused while a booking runs or where nothing is left to make it from, InvalidInput for a template that
    is not among `renewals`, Conflict."""
    if (begun := goes_on(instance)) is not None:  # no GPU can be in what is left of it
        told = begun.details  # the new one is there already, made of this
        return _renew(actor, instance, told.get("template", instance.template_id), told.get("image", instance.image))
    require_there(instance)
    if instances.holds_gpu(instance):
        raise RuleRefused(_("A booking with this machine is running."), _("End the booking first."), rule="booked")
    if template_id is None and has_image(instance):
        return _renew(actor, instance, None, instance.image)
    found = renewals(instance)
    if template_id is None:
        chosen = next((one for one in found if one.name == instance.made_from), None)
    else:
        chosen = next((one for one in found if one.id == template_id), None)
    if chosen is not None:
        return _renew(actor, instance, chosen.id, chosen.image)
    if found:
        raise InvalidInput(_("Choose one from the list."), field="template")
    refused = _("%(host)s has no image %(image)s.", host=instance.host.name, image=instance.made_from)
    raise RuleRefused(refused, _("Ask an admin for a template of it."), rule="image")


def _renew(actor: User, instance: Instance, template_id: int | None, image: str) -> Operation:
    """It counts as made of that at once, which keeps the image from being removed; if it fails, as of what it was."""
    was = {"template": instance.template_id, "image": instance.image}
    told = {"template": template_id, "image": image, "was": was}
    operation = instances.request(actor, instance, OperationKind.REBUILD, **told)
    outcomes.note_source(instance, template_id, image)
    return operation


def renewals(instance: Instance) -> list[Template]:
    """The templates that it can be made anew from, the likeliest first: its own one, the one that has that one's name
    now, and whatever else its owner is offered on its host. Its owner must be loaded."""
    own = instance.template
    found = [one for one in templates.offered(instance.owner) if one.host_id == instance.host_id]
    if own is not None and own.state == TemplateState.READY and own.retired_at is None and own not in found:
        found.append(own)
    return sorted(found, key=lambda one: (one.id != instance.template_id, one.name != instance.made_from, one.name))


def has_image(instance: Instance) -> bool:
    """Whether it was made from an image as it is that its host still has."""
    return instance.template_id is None and instance.image in {known["alias"] for known in instance.host.images}


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


def goes_on(instance: Instance) -> Operation | None:
    """The rebuild that failed on the way, which the next one goes on with."""
    begun = halfway(instance)
    return begun if begun is not None and begun.kind == OperationKind.REBUILD else None


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
