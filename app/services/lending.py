"""NVIDIA's libraries in a machine: how they come into it, as far as its host's agent has said, and giving it the host's
where it was made before there were any to give, taken over, or moved there."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from app.drivers.libraries import DUE, INSIDE, LENDING, Way, Why
from app.errors import Conflict
from app.language import gettext as _
from app.models import Instance, InstanceStatus, Operation, OperationKind, User
from app.services import instances

_MAY = {InstanceStatus.RUNNING, InstanceStatus.STOPPED}  # a paused one could not be told of them


class Source(StrEnum):
    """Where a machine has them from."""

    MOUNT = "mount"  # the host's, in a read-only directory
    RUNTIME = "runtime"  # the host's, brought in by LXD at each start
    OWN = "own"  # what lay in its template
    NONE = "none"  # not the host's; nobody knows what lies in it


@dataclass(frozen=True)
class Libraries:
    """A machine's, as far as is known. `version`: theirs, "" if not known; `driver`: the host's driver's.

    `fit`: whether the two are the same; None: not known. `due`: they are there from its next start on. `may_lend`: it
    can be given the host's."""

    source: Source
    version: str
    driver: str
    fit: bool | None
    due: bool = False
    may_lend: bool = False


def of(instance: Instance) -> Libraries | None:
    """What is to be said of a machine's (its host loaded); None while neither it nor its host has been looked at, or
    where no driver of NVIDIA's is loaded."""
    seen, brought = instance.observed, instance.host.libraries_seen
    if not brought.get("version") or "devices" not in seen:
        return None
    driver = instance.host.driver_version or str(brought["version"])
    config = seen.get("config", {})
    due = DUE in config
    if any(f"path={INSIDE}" in words.split() for words in seen["devices"].values()):
        # Without a library of the driver's version, the directory has been left as it was.
        version = "" if brought["why"] == Why.NO_FILES else str(brought["version"])
        waits = due and instance.status != InstanceStatus.RUNNING
        return Libraries(Source.MOUNT, version, driver, version == driver, waits)
    if config.get("nvidia.runtime", "").lower() in {"true", "1", "yes", "on"}:
        return Libraries(Source.RUNTIME, driver, driver, None if due else True, due)
    own = instance.template.driver_version if instance.template else ""
    may = brought["way"] in LENDING and instance.status in _MAY and not seen.get("privileged")
    may = may and instance.delete_at is None
    source = Source.OWN if own else Source.NONE
    return Libraries(source, own, driver, own == driver if own else None, may_lend=may)


def lend(actor: User | None, instance: Instance) -> Operation:
    """Give a machine (its host loaded) what new ones of its host get; asked for again, it does no harm.

    Raises Conflict where its host gives none, it neither runs nor is stopped, or other work is under way."""
    if instance.host.libraries_seen.get("way") == Way.INSTALL:
        told = _("%(host)s brings no NVIDIA libraries into machines.", host=instance.host.name)
        raise Conflict(told, _("Install those of its driver's version in the machine."))
    if instance.status == InstanceStatus.FROZEN:
        raise Conflict(_("%(name)s is paused.", name=instance.name), _("Let it go on first."))
    return instances.request(actor, instance, OperationKind.LIBRARIES)
