"""The host's ports that lead into machines: two numbers for each, of the host's range, for as long as it lives."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta

from sqlalchemy import or_, select, text

from app import clock
from app.drivers.doors import Door
from app.errors import RuleRefused
from app.extensions import db
from app.language import gettext as _
from app.models import Host, Instance, Port, Purpose

REST = timedelta(hours=24)  # who still knows a number must not land in somebody else's machine
_LOCK = 0x706F7274  # "port": the first key of the advisory lock, the host's id is the second


def of_machine(instance_id: int) -> dict[Purpose, Port]:
    """A machine's ports."""
    return by_machine([instance_id])[instance_id]


def by_machine(instance_ids: Collection[int]) -> dict[int, dict[Purpose, Port]]:
    """The ports of several machines, by the machine's id; nothing for one that has none."""
    found: dict[int, dict[Purpose, Port]] = {instance_id: {} for instance_id in instance_ids}
    query = select(Port).where(Port.instance_id.in_(instance_ids), Port.released_at.is_(None))
    for port in db.session.scalars(query.order_by(Port.id)):
        found[port.instance_id][port.purpose] = port
    return found


def reserve(instance: Instance, host: Host) -> dict[Purpose, Port]:
    """Give the machine the ports that it lacks. Raises RuleRefused when the host's range is used up."""
    found = of_machine(instance.id)
    missing = [purpose for purpose in Purpose if purpose not in found]
    if missing:
        _wait_for_turn(host.id)
        numbers = _free(host, len(missing))
        for purpose, number in zip(missing, numbers, strict=True):
            found[purpose] = Port(host_id=host.id, number=number, purpose=purpose, instance_id=instance.id)
            db.session.add(found[purpose])
        db.session.flush()
    return found


def replace(port_id: int, host: Host) -> Port:
    """Another number in place of one that somebody else has on the host. Raises RuleRefused."""
    old = db.session.get_one(Port, port_id)
    _wait_for_turn(host.id)
    number = _free(host, 1)[0]
    old.released_at = clock.now()
    db.session.flush()
    new = Port(host_id=host.id, number=number, purpose=old.purpose, instance_id=old.instance_id)
    db.session.add(new)
    db.session.flush()
    return new


def release(instance_id: int) -> None:
    """The machine is gone; its numbers rest before anybody else gets them."""
    for port in of_machine(instance_id).values():
        port.released_at = clock.now()
    db.session.flush()


def door(port: Port, host: Host) -> Door:
    """A port as the driver opens it."""
    return Door(str(port.purpose), host.listen, port.number)


def note(port_id: int, trouble: str) -> None:
    """Write down why a port does not lead where it should, or that it does."""
    port = db.session.get(Port, port_id)
    if port is not None and port.trouble != trouble:
        port.trouble = trouble
        db.session.flush()


def _wait_for_turn(host_id: int) -> None:
    """Two that choose at once would choose the same."""
    db.session.execute(text("SELECT pg_advisory_xact_lock(:kind, :host)"), {"kind": _LOCK, "host": host_id})


def _free(host: Host, count: int) -> list[int]:
    kept = or_(Port.released_at.is_(None), Port.released_at > clock.now() - REST)
    used = set(db.session.scalars(select(Port.number).where(Port.host_id == host.id, kept)))
    if host.desktop_port is not None:
        used.add(host.desktop_port)
    free = [number for number in range(host.first_port, host.last_port + 1) if number not in used]
    if len(free) < count:
        raise RuleRefused(
            _("%(host)s has no port left for another machine.", host=host.name),
            _("An admin can give it more: berth host set %(host)s --ports FIRST-LAST.", host=host.name),
            rule="ports",
        )
    return free[:count]
