"""Moving a machine to another host, where both are members of one LXD cluster: who may go where, and asking for it."""

from __future__ import annotations

from sqlalchemy import func, or_, select

from app import clock
from app.errors import InvalidInput, RuleRefused
from app.extensions import db
from app.language import gettext as _
from app.models import Booking, Host, Instance, Operation, OperationKind, User
from app.services import care, instances, placing
from app.services.words import when


def neighbours(host: Host) -> list[Host]:
    """The other hosts in service of a host's LXD cluster, by name."""
    if not host.cluster:
        return []
    query = select(Host).where(Host.cluster == host.cluster, Host.id != host.id, Host.enabled)
    return list(db.session.scalars(query.order_by(Host.name)))


def why_nowhere(host: Host) -> str:
    """Why no machine of this host's can move, in words; "" where one can."""
    if neighbours(host):
        return ""
    if not host.cluster:
        return _("%(host)s is in no LXD cluster, so a machine cannot move from there.", host=host.name)
    return _("No other host of %(host)s's LXD cluster is in Berth and in service.", host=host.name)


def request(actor: User | None, instance: Instance, target: Host, *, anyway: bool = False) -> Operation:
    """Ask for a machine to be moved; its host must be loaded.

    One that failed half-way goes on where it stopped, to the same host and no other. `anyway`: an admin's, also where
    there is no room.

    Raises InvalidInput for a host that it cannot go to, RuleRefused while bookings need it where it is, Conflict."""
    begun = care.halfway(instance)
    if begun is None or begun.kind != OperationKind.MOVE or begun.details["to"] != target.id:
        begun = None
        care.require_there(instance)
    if target.id == instance.host_id:
        raise InvalidInput(_("%(name)s is there already.", name=instance.name), field="host")
    if not instance.host.cluster or target.cluster != instance.host.cluster:
        raise InvalidInput(
            _("%(old)s and %(new)s are not members of one LXD cluster.", old=instance.host.name, new=target.name),
            _("Make a new machine there and carry your files over."),
            field="host",
        )
    if not target.enabled:
        raise InvalidInput(_("%(host)s is out of service.", host=target.name), field="host")
    if begun is None:
        refuse_booked(instance)
        pool = instance.observed.get("pool", "")
        disk = 0 if instance.observed.get("pool_driver") == "ceph" else instance.disk_gib  # one pool for all hosts
        placing.require(actor, target, memory_gib=instance.memory_mib // 1024, disk_gib=disk, pool=pool, anyway=anyway)
    ran = begun.details["ran"] if begun else instance.status in care.ON
    details = {"member": target.member, "to": target.id, "host": target.name, "ran": ran}
    return instances.request(actor, instance, OperationKind.MOVE, **details)


def retry(actor: User, instance: Instance) -> Operation:
    """Ask once more for the making of a machine, its rebuild or its move, whichever failed and left none of its name on
    its host; the host must be loaded. Raises what these raise."""
    begun = care.halfway(instance)
    if begun is None:
        return instances.request(actor, instance, OperationKind.CREATE)
    if begun.kind == OperationKind.REBUILD:
        return care.rebuild(actor, instance)
    return request(actor, instance, db.session.get_one(Host, begun.details["to"]))


def refuse_booked(instance: Instance) -> None:
    """Raise RuleRefused while a booking of its host's GPUs runs or is to come for it: the GPUs stay where they are."""
    found = _needing(instance)
    if not found:
        return
    first = found[0]
    if first.starts_at <= clock.now():
        raise RuleRefused(_("A booking with this machine is running."), _("End the booking first."), rule="booked")
    raise RuleRefused(
        _(
            "It is booked with GPUs of %(host)s, the first time from %(start)s.",
            host=instance.host.name,
            start=when(first.starts_at),
        ),
        _("Cancel that booking first, and book again after the move: GPUs stay in their host."),
        rule="booked",
    )


def _needing(instance: Instance) -> list[Booking]:
    """What of its owner's is booked on its host for this machine, now or later, in order of start."""
    oldest = select(func.min(Instance.id)).where(
        Instance.owner_id == instance.owner_id, Instance.host_id == instance.host_id, Instance.takes_gpus
    )
    named = Booking.instance_id == instance.id
    unnamed = Booking.instance_id.is_(None) & (oldest.scalar_subquery() == instance.id)
    query = select(Booking).where(
        Booking.user_id == instance.owner_id,
        Booking.host_id == instance.host_id,
        Booking.cancelled_at.is_(None),
        Booking.ends_at > clock.now(),
        or_(named, unnamed),
    )
    return list(db.session.scalars(query.order_by(Booking.starts_at)))
