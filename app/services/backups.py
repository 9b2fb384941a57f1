"""Backups to download: asked for here, made by the host's agent as an operation, fetched from it with a ticket.

A machine has one at a time; a new one takes its place, and each is gone some hours after it was made."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from sqlalchemy import Select, and_, delete, or_, select, update

from app import clock
from app.errors import Conflict
from app.extensions import db
from app.language import gettext as _
from app.models import (
    Backup,
    Download,
    Host,
    Instance,
    Operation,
    OperationKind,
    Role,
    SignIn,
    User,
    UserState,
)
from app.models.backups import KEPT
from app.services import audit, care, instances, signins, snapshots

TICKET_LIFE = timedelta(minutes=1)


@dataclass(frozen=True)
class Fetch:
    """A download that may begin. `name`: what the file is to be called."""

    id: int
    backup: int
    instance: str
    person: str
    name: str


def current(instance: Instance) -> Backup | None:
    """The machine's backup, also while it is being made."""
    alive = or_(Backup.expires_at.is_(None), Backup.expires_at > clock.now())
    query = select(Backup).where(Backup.instance_id == instance.id, Backup.removed_at.is_(None), alive)
    return db.session.scalar(query)


def request(actor: User | None, instance: Instance, snapshot: str = "") -> Operation:
    """Ask for one of a snapshot, or of the machine as it is (""); the last one goes. Raises Conflict, NotFound."""
    care.require_there(instance)
    name = snapshots.find(instance, snapshot).name if snapshot else ""
    _end(Backup.instance_id == instance.id)
    backup = Backup(instance_id=instance.id, host_id=instance.host_id, snapshot=name)
    db.session.add(backup)
    db.session.flush()
    return instances.request(actor, instance, OperationKind.BACKUP, backup=backup.id, snapshot=name)


def remove(actor: User | None, instance: Instance) -> None:
    """Have the file removed. Raises Conflict while it is being made."""
    found = current(instance)
    if found is None:
        return
    if found.ready_at is None:
        raise Conflict(_("The backup is still being made."), _("Wait until it is done."))
    found.removed_at = clock.now()
    db.session.flush()
    who = actor.username if actor else audit.SYSTEM
    audit.record(who, "backup.removed", f"instance:{instance.name}", backup=found.id)


def kept(host: Host) -> set[int]:
    """Those whose files the host is to keep; what is over by the clock, or whose machine is gone, is removed."""
    gone = Backup.instance_id.in_(select(Instance.id).where(Instance.deleted_at.is_not(None)))
    db.session.execute(delete(Download).where(Download.created_at < clock.now() - 2 * KEPT))
    _end(Backup.host_id == host.id, or_(Backup.expires_at <= clock.now(), gone))
    query = select(Backup.id).where(Backup.host_id == host.id, Backup.removed_at.is_(None))
    return set(db.session.scalars(query))


def file_of(data_dir: Path, host_name: str, number: int) -> Path:
    """Where the host's agent keeps the file."""
    return data_dir / "backups" / host_name / f"{number}.tar.gz"


def file_name(instance: Instance, backup: Backup) -> str:
    """What it is called where it is downloaded: made of a machine's name, and a time."""
    return f"{instance.name}-{backup.created_at:%Y%m%d-%H%M}.tar.gz"


def ticket(sign_in: SignIn | None, instance: Instance) -> str:
    """A ticket for one download, good once and for a minute; without a sign-in for the command line. Raises Conflict
    where there is nothing to download."""
    found = current(instance)
    if found is None or found.ready_at is None:
        raise Conflict(_("There is no backup of %(name)s to download.", name=instance.name))
    key = secrets.token_urlsafe(32)
    made = Download(ticket_hash=_hash(key), backup_id=found.id, sign_in_id=sign_in.id if sign_in else None)
    made.created_at = clock.now()
    db.session.add(made)
    db.session.flush()
    return key


def redeem(host: Host, key: str) -> Fetch | None:
    """Use a ticket; None for one that is used, too old, of another host, or whose person lost the right."""
    now = clock.now()
    statement = (
        update(Download)
        .where(
            Download.ticket_hash == _hash(key), Download.opened_at.is_(None), Download.created_at > now - TICKET_LIFE
        )
        .values(opened_at=now)
        .returning(Download.id)
    )
    number = db.session.scalar(statement)
    row = db.session.execute(_rightful(number).where(Backup.host_id == host.id)).one_or_none() if number else None
    if number is None or row is None:
        return None
    backup, instance, person = row
    found = Fetch(number, backup.id, instance.name, person or audit.CLI, file_name(instance, backup))
    audit.record(found.person, "backup.fetched", f"instance:{instance.name}", backup=backup.id, download=number)
    return found


def may_go_on(number: int) -> bool:
    """Whether a download may go on: signed in still, the machine still theirs (or they an admin), the file there."""
    return db.session.execute(_rightful(number)).one_or_none() is not None


def close(fetch: Fetch, sent: int, why: str) -> None:
    """Note that a download ended."""
    db.session.execute(update(Download).where(Download.id == fetch.id).values(closed_at=clock.now()))
    audit.record(fetch.person, "backup.fetch.ended", f"instance:{fetch.instance}", download=fetch.id, bytes=sent,
                 why=why)  # fmt: skip


def _rightful(number: int) -> Select[Backup, Instance, str | None]:
    now = clock.now()
    signed_in = and_(
        SignIn.seen_at > now - signins.IDLE,
        SignIn.created_at > now - signins.ABSOLUTE,
        User.state == UserState.ACTIVE,
        or_(Instance.owner_id == User.id, User.role == Role.ADMIN),
    )
    return (
        select(Backup, Instance, User.username)
        .select_from(Download)
        .join(Backup, Download.backup_id == Backup.id)
        .join(Instance, Backup.instance_id == Instance.id)
        .outerjoin(SignIn, Download.sign_in_id == SignIn.id)
        .outerjoin(User, SignIn.user_id == User.id)
        .where(
            Download.id == number,
            Download.closed_at.is_(None),
            Backup.removed_at.is_(None),
            Backup.expires_at > now,
            Instance.deleted_at.is_(None),
            or_(Download.sign_in_id.is_(None), signed_in),
        )
    )


def _end(*which: object) -> None:
    statement = update(Backup).where(Backup.removed_at.is_(None), *which).values(removed_at=clock.now())  # type: ignore[arg-type]
    db.session.execute(statement)


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
