"""What an operation that ended means for its machine, beyond whether that runs: a new size, a name, an owner."""

from __future__ import annotations

from contextlib import suppress

from sqlalchemy import update
from sqlalchemy.exc import IntegrityError

from app import clock
from app.drivers.libraries import DUE
from app.drivers.lifecycle import RENEWED
from app.errors import RuleRefused
from app.extensions import db
from app.models import Backup, Host, Instance, InstanceStatus, Operation, OperationKind
from app.models.backups import KEPT
from app.services import attachments, ports


def of(operation: Operation, instance: Instance, error: str) -> None:
    """Write it down. `operation` is closed already; `error` is "" where all went well."""
    if operation.kind == OperationKind.RESIZE and not error:
        for name in ("cpus", "memory_mib", "disk_gib"):
            setattr(instance, name, int(operation.details[name]))
    elif operation.kind == OperationKind.RENAME and error and not operation.details.get("renamed"):
        _old_name(instance, str(operation.details["old"]))
    elif operation.kind in {OperationKind.REBUILD, OperationKind.RESTORE}:
        _old_source(instance, operation)
        # The account inside is gone with the old disk, or as it was when the snapshot was taken: the agent makes what
        # is missing, and writes the keys. Where it ended in an error, the disk may have become another one before.
        instance.password_at, instance.keys_at, instance.health = None, None, {}
    elif operation.kind == OperationKind.MOVE and not error:
        _arrived(instance, int(operation.details["to"]))
    elif operation.kind == OperationKind.ADOPT:
        _taken_over(instance, error)
    elif operation.kind == OperationKind.BACKUP:
        _backup(operation, error)
    elif operation.kind in {OperationKind.START, OperationKind.RESTART} and not error:
        _started(instance)
    db.session.flush()


def _taken_over(instance: Instance, error: str) -> None:
    if error:  # it stays what it was: not Berth's
        instance.deleted_at = clock.now()
    elif instance.observed.get("status") in {status.value for status in InstanceStatus}:
        instance.status = InstanceStatus(instance.observed["status"])


def note_source(instance: Instance, template_id: int | None, image: str) -> None:
    """Write down what it is made from."""
    instance.template_id, instance.image = template_id, image
    db.session.flush()
    db.session.expire(instance, ["template"])


def _old_source(instance: Instance, operation: Operation) -> None:
    """After a rebuild that failed it is made from what it was, unless the new one has its name already."""
    was = operation.details.get("was")
    if was and operation.error and operation.percent < RENEWED:
        note_source(instance, was["template"], was["image"])


def _started(instance: Instance) -> None:
    """What waited for that is there, without waiting for the next slow look to say so."""
    if DUE in instance.observed.get("config", {}):
        db.session.refresh(instance, ["observed"], with_for_update={"key_share": True})  # looks write there too
        config = instance.observed.get("config", {})
        kept = {key: value for key, value in config.items() if key != DUE}
        instance.observed = instance.observed | {"config": kept}


def _backup(operation: Operation, error: str) -> None:
    backup = db.session.get_one(Backup, operation.details["backup"])
    if error:
        backup.removed_at = clock.now()
    else:
        backup.size, backup.ready_at = int(operation.details["size"]), clock.now()
        backup.expires_at = backup.ready_at + KEPT


def _arrived(instance: Instance, host_id: int) -> None:
    """It belongs to its new host, with ports of that one. Where there are none left, Mend gives it some later. The file
    of a backup stays behind, where nobody could fetch it any more: that is over."""
    target = db.session.get_one(Host, host_id)
    left = update(Backup).where(Backup.instance_id == instance.id, Backup.removed_at.is_(None))
    db.session.execute(left.values(removed_at=clock.now()))
    attachments.stay(instance.owner_id, host_id)
    ports.release(instance.id)
    instance.host_id, instance.host, instance.health = target.id, target, {}
    db.session.flush()
    with suppress(RuleRefused):
        ports.reserve(instance, target)


def _old_name(instance: Instance, name: str) -> None:
    """Back to the name that its host knows; if somebody has taken that meanwhile, an admin has to see to it."""
    try:
        with db.session.begin_nested():
            instance.name = name
            db.session.flush()
    except IntegrityError:
        db.session.refresh(instance)
