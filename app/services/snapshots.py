"""Snapshots of machines: made by hand or by schedule, put back, removed. LXD has them; the agent mirrors what there is
into `Instance.observed`, and every name is made here, never by a person."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from app import clock
from app.errors import InvalidInput, NotFound, RuleRefused
from app.extensions import db
from app.language import gettext as _
from app.models import Instance, Operation, OperationKind, Schedule, User
from app.services import audit, care, instances, policy

EVERY = {Schedule.DAILY: timedelta(days=1), Schedule.WEEKLY: timedelta(days=7)}
AUTO, HAND = "auto-", "hand-"


@dataclass(frozen=True)
class Snapshot:
    """One as the host last showed it. `size`: bytes, None where the pool does not know."""

    name: str
    at: datetime
    size: int | None

    @property
    def auto(self) -> bool:
        """Whether it was made by schedule."""
        return self.name.startswith(AUTO)


def of(instance: Instance) -> list[Snapshot]:
    """A machine's snapshots, the newest first."""
    return shown(instance.observed)


def shown(seen: Mapping[str, Any]) -> list[Snapshot]:
    """The snapshots in what a slow look found, the newest first."""
    found = seen.get("snapshots", [])
    rows = [Snapshot(one["name"], datetime.fromtimestamp(one["at"], UTC), one["size"]) for one in found]
    return sorted(rows, key=lambda one: (one.at, one.name), reverse=True)


def find(instance: Instance, name: str) -> Snapshot:
    """One by name. Raises NotFound."""
    for snapshot in of(instance):
        if snapshot.name == name:
            return snapshot
    raise NotFound(_("%(machine)s has no such snapshot.", machine=instance.name))


def take(actor: User | None, instance: Instance, *, auto: bool = False) -> Operation:
    """Ask for one. By schedule it may push an older one out; by hand it is refused where there are too many."""
    care.require_there(instance)
    most = policy.current().max_snapshots
    if not auto and len(of(instance)) >= most:
        raise RuleRefused(
            _("A machine may have %(max)s snapshots at most.", max=most),
            _("Delete one you do not need."),
            rule="max_snapshots",
            limit=most,
        )
    name = f"{AUTO if auto else HAND}{clock.now():%Y%m%d-%H%M%S}"
    return instances.request(actor, instance, OperationKind.SNAPSHOT, snapshot=name, most=most, keep=instance.keep)


def only_newest(instance: Instance) -> bool:
    """Whether its storage goes back to the newest one alone: ZFS would have to destroy what was made since, and LXD
    refuses that (https://documentation.ubuntu.com/lxd/stable-5.0/reference/storage_zfs)."""
    return instance.observed.get("pool_driver") == "zfs"


def to_put_back(instance: Instance, name: str) -> Snapshot:
    """One by name, if the machine can be put back to it. Raises NotFound and RuleRefused."""
    snapshot = find(instance, name)
    newer = of(instance).index(snapshot)
    if newer and only_newest(instance):
        raise RuleRefused(
            _("On this host a machine can only be put back to its newest snapshot, and there are newer ones."),
            _("Delete those first, or download a backup of this one."),
            rule="newest_snapshot",
        )
    return snapshot


def restore(actor: User, instance: Instance, name: str) -> Operation:
    """Ask for a machine's disk to be put back; it is stopped meanwhile, and started again if it ran."""
    care.require_there(instance)
    snapshot = to_put_back(instance, name)
    ran = instance.status in care.ON
    return instances.request(actor, instance, OperationKind.RESTORE, snapshot=snapshot.name, ran=ran)


def forget(actor: User, instance: Instance, name: str) -> Operation:
    """Ask for a snapshot to be removed."""
    care.require_there(instance)
    return instances.request(actor, instance, OperationKind.FORGET, snapshot=find(instance, name).name)


def set_schedule(actor: User, instance: Instance, schedule: str, keep: int) -> None:
    """Make them by themselves, so often, and keep so many of those. Raises InvalidInput naming the field."""
    most = policy.current().max_snapshots
    if schedule not in set(Schedule):
        raise InvalidInput(_("Choose one from the list."), field="schedule")
    if not 1 <= keep <= max(most, 1):
        raise InvalidInput(_("This must be a whole number from 1 to %(max)s.", max=max(most, 1)), field="keep")
    instance.schedule, instance.keep = Schedule(schedule), keep
    db.session.flush()
    audit.record(actor.username, "instance.schedule", f"instance:{instance.name}", schedule=schedule, keep=keep)


def is_due(instance: Instance, now: datetime) -> bool:
    """Whether the schedule wants one by now. Only once its host has shown which there are."""
    every = EVERY.get(instance.schedule)
    if every is None or "snapshots" not in instance.observed:
        return False
    made = [one.at for one in of(instance) if one.auto]
    return not made or now - max(made) >= every
