"""The files of backups on a host: made by an operation, and gone when nobody may fetch them any more."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from app.config import Settings
from app.extensions import settings, transaction
from app.services import backups, inventory, operations

if TYPE_CHECKING:
    from workers.works import Work


def make(work: Work) -> None:
    """Make the file that was asked for. Until it is whole, it has another name."""
    details, machine = work.operation.details, work.instance
    with transaction():
        host_name = inventory.host_of(work.operation.host_id).name
    path = backups.file_of(settings().data_dir, host_name, int(details["backup"]))
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.parent.chmod(0o700)
    part = path.with_suffix(".part")
    try:
        size = work.driver.backup(
            machine.name, str(details["snapshot"]), part, settings().backup_gib << 30, work.progress
        )
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    with transaction():
        operations.remember(work.operation.id, size=size)


def tidy(settings: Settings, host_name: str, kept: Collection[int]) -> None:
    """Remove the files of all other backups of the host."""
    folder = backups.file_of(settings.data_dir, host_name, 0).parent
    for path in folder.iterdir() if folder.exists() else ():
        number = path.name.partition(".")[0]
        if number.isdigit() and int(number) not in kept:
            path.unlink(missing_ok=True)
