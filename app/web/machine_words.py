"""A machine in words: what it is doing, how far that is, and since when its host is silent."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from flask_babel import LazyString

from app import clock
from app.extensions import settings
from app.language import gettext as _
from app.language import lazy_gettext as _l
from app.models import Allocation, Host, Instance, Operation, OperationKind
from app.services import attachments, care, full_disks, inventory, operations
from app.web.library_words import Line, line
from app.web.operation_words import Worked
from app.web.times import ago

STATUS = {  # InstanceStatus → the code in app.web.states, and a word of its own where that has another
    "creating": ("creating", _l("Being created")),
    "running": ("running", _l("Running")),
    "stopped": ("stopped", _l("Stopped")),
    "frozen": ("stopped", _l("Paused")),
    "failed": ("failed", _l("Not created")),
    "missing": ("not_reachable", _l("Not on its host")),
}
UNDER_WAY = {
    OperationKind.CREATE: ("creating", _l("Being created")),
    OperationKind.START: ("starting", _l("Starting")),
    OperationKind.STOP: ("stopping", _l("Stopping")),
    OperationKind.RESTART: ("starting", _l("Restarting")),
    OperationKind.DELETE: ("stopping", _l("Being deleted")),
    OperationKind.PASSWORD: ("running", _l("Password being set")),
    OperationKind.FREEZE: ("stopping", _l("Being paused")),
    OperationKind.RENAME: ("starting", _l("Being renamed")),
    OperationKind.RESIZE: ("starting", _l("Being resized")),
    OperationKind.SNAPSHOT: ("starting", _l("Making a snapshot")),
    OperationKind.RESTORE: ("starting", _l("Being put back")),
    OperationKind.FORGET: ("starting", _l("Deleting a snapshot")),
    OperationKind.REBUILD: ("creating", _l("Being rebuilt")),
    OperationKind.ADOPT: ("starting", _l("Being taken over")),
    OperationKind.BACKUP: ("running", _l("Being backed up")),
    OperationKind.MOVE: ("stopping", _l("Being moved")),
    OperationKind.LIBRARIES: ("running", _l("Being given NVIDIA's libraries")),
}
STEPS = {
    "queued": _l("Waiting for the host"),
    "preparing": _l("Getting ready"),
    "copying": _l("Copying the image"),
    "starting": _l("Starting"),
    "stopping": _l("Stopping"),
    "deleting": _l("Deleting"),
    "checking": _l("Checking that it works"),
    "account": _l("Making the account in it, opening its ports"),
    "renaming": _l("Giving it the new name"),
    "resizing": _l("Setting its limits"),
    "keeping": _l("Keeping its disk as it is now"),
    "carrying": _l("Carrying /home over"),
    "packing": _l("Packing its disk into a file"),
    "restoring": _l("Putting its disk back"),
    "moving": _l("Carrying its disk to the other host"),
    "lending": _l("Giving it the host's NVIDIA libraries"),
    "done": _l("Done"),
    "failed": _l("Failed"),
}
FAILED = {
    OperationKind.CREATE: _l("The machine could not be created."),
    OperationKind.START: _l("The machine could not be started."),
    OperationKind.STOP: _l("The machine could not be stopped."),
    OperationKind.RESTART: _l("The machine could not be restarted."),
    OperationKind.DELETE: _l("The machine could not be deleted."),
    OperationKind.PASSWORD: _l("The new password could not be set. The old one, if there is one, still counts."),
    OperationKind.FREEZE: _l("The machine could not be paused."),
    OperationKind.RENAME: _l("The machine could not be renamed."),
    OperationKind.RESIZE: _l("The machine could not be resized."),
    OperationKind.SNAPSHOT: _l("The snapshot could not be made."),
    OperationKind.RESTORE: _l("The machine could not be put back to the snapshot."),
    OperationKind.FORGET: _l("The snapshot could not be deleted."),
    OperationKind.REBUILD: _l("The machine could not be rebuilt."),
    OperationKind.ADOPT: _l("The instance could not be taken over."),
    OperationKind.BACKUP: _l("The backup could not be made."),
    OperationKind.MOVE: _l("The machine could not be moved."),
    OperationKind.LIBRARIES: _l("The machine could not be given the host's NVIDIA libraries."),
}
DONE = {
    OperationKind.CREATE: _l("%(name)s is ready."),
    OperationKind.START: _l("%(name)s runs."),
    OperationKind.STOP: _l("%(name)s is stopped."),
    OperationKind.RESTART: _l("%(name)s runs again."),
    OperationKind.DELETE: _l("%(name)s is deleted."),
    OperationKind.PASSWORD: _l("The new password of %(name)s counts."),
    OperationKind.FREEZE: _l("%(name)s is paused."),
    OperationKind.RENAME: _l("It is called %(name)s now."),
    OperationKind.RESIZE: _l("%(name)s has its new size."),
    OperationKind.SNAPSHOT: _l("The snapshot of %(name)s is made."),
    OperationKind.RESTORE: _l("%(name)s is put back to the snapshot."),
    OperationKind.FORGET: _l("The snapshot of %(name)s is deleted."),
    OperationKind.REBUILD: _l("%(name)s is rebuilt."),
    OperationKind.ADOPT: _l("%(name)s is a machine of Berth's now."),
    OperationKind.BACKUP: _l("The backup of %(name)s can be downloaded."),
    OperationKind.MOVE: _l("%(name)s is on its new host."),
    OperationKind.LIBRARIES: _l("%(name)s has the host's NVIDIA libraries."),
}
LENT_LATER = _l("%(name)s has the host's NVIDIA libraries from its next start on.")


@dataclass(frozen=True)
class Card(Worked):
    """One machine as its card shows it."""

    machine: Instance
    operation: Operation | None  # the newest, open or not
    gpus: tuple[Allocation, ...]
    silence: str
    halfway: bool  # a rebuild or a move of it failed on the way, and goes on when it is asked for again

    @property
    def busy(self) -> bool:
        """Whether work on it is under way; or it was deleted just now, which the next look shows."""
        return super().busy or self.machine.deleted_at is not None

    @property
    def state(self) -> tuple[str, LazyString]:
        """The code in app.web.states and the word."""
        if self.busy and self.operation is not None:
            return UNDER_WAY[self.operation.kind]
        if self.silence and self.machine.status in {"running", "stopped", "frozen"}:
            return "not_reachable", _l("Not reachable")
        return STATUS[self.machine.status]

    @property
    def filled(self) -> bool:
        """Whether its disk is full, or so nearly that it may be: part of what is on it, the figure leaves out."""
        return full_disks.is_full(self.machine)

    @property
    def libraries(self) -> Line | None:
        """How NVIDIA's libraries come into it."""
        return line(self.machine)

    @property
    def step(self) -> str:
        """What the work under way is at."""
        code = self.operation.step if self.operation else ""
        return str(STEPS.get(code, code))

    @property
    def failure(self) -> str:
        """What did not work."""
        return str(FAILED[self.operation.kind]) if self.operation else ""

    @property
    def finished(self) -> str:
        """The sentence for when the work is done, or has failed."""
        if self.operation is None:
            return ""
        if self.failed:
            return self.failure
        due = self.operation.kind == OperationKind.LIBRARIES and self.operation.details.get("due")
        return str(LENT_LATER if due else DONE[self.operation.kind]) % {"name": self.machine.name}


def cards(machines: list[Instance]) -> list[Card]:
    """The machines (host loaded) with what their cards need, in three queries at most; and one for each that its host
    lacks."""
    if not machines:
        return []
    newest = operations.latest({machine.id for machine in machines})
    gpus = attachments.by_machine(machines)
    return [
        Card(
            machine,
            newest.get(machine.id),
            tuple(gpus.get(machine.id, ())),
            silence_of(machine.host),
            care.halfway(machine) is not None,
        )
        for machine in machines
    ]


def silence_of(host: Host) -> str:
    """Why what is known of a host may be old, or nothing."""
    return silence(host.name, host.seen_at, host.trouble)


def silence(name: str, seen_at: datetime | None, trouble: str) -> str:
    """The same of a host of which only so much is loaded."""
    if seen_at is None:
        return _("%(host)s has not reported yet.", host=name)
    if clock.now() - seen_at > silent_after():
        return _("%(host)s reported last %(ago)s.", host=name, ago=ago(seen_at))
    return _("%(host)s does not answer at the moment.", host=name) if inventory.is_away(trouble) else ""


def silent_after() -> timedelta:
    """From when on an agent that says nothing is taken to be away."""
    return timedelta(seconds=max(60, 4 * settings().tick))
