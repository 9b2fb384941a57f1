"""Whose an instance is: nothing is done in one without the mark of its machine's owner, whatever its name is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.drivers.base import TAG_PREFIX, GiveUp, LxdDriver
from app.drivers.lifecycle import BESIDE
from app.models import OperationKind

if TYPE_CHECKING:
    from workers.works import Work

# The driver itself looks whose it is: there is none yet, it has no mark yet, or it may be gone.
_DRIVERS = {OperationKind.CREATE, OperationKind.ADOPT, OperationKind.DELETE}
_BESIDE = {OperationKind.REBUILD, OperationKind.MOVE}


def look(work: Work) -> None:
    """Before work on a machine. Raises GiveUp where one of its names is another's, HostUnreachable."""
    kind, details = work.operation.kind, work.operation.details
    if work.operation.instance is None or kind in _DRIVERS:
        return
    if kind == OperationKind.RESTORE and details.get("begun"):  # killed half-way it has the settings of another day
        return
    name = work.instance.name
    more = [name + end for end in BESIDE] if kind in _BESIDE else [str(details["old"])] if "old" in details else []
    refuse_others(work.driver, work.instance.owner.username, name, *more)


def refuse_others(driver: LxdDriver, owner: str, *names: str) -> None:
    """Raise GiveUp where the host has an instance of such a name that does not bear this owner's mark."""
    for name, seen in driver.observe(frozenset(names)).instances.items():
        if seen.owner != owner:
            detail = "the host has an instance of that name, and it is not this owner's"
            raise GiveUp(f"Use {name}", detail, f"If it is, an admin marks it: {TAG_PREFIX}owner={owner}.")
