"""Whether one gets into a machine, in words, and what to do where one does not."""

from __future__ import annotations

from dataclasses import dataclass

from flask_babel import LazyString

from app.language import gettext as _
from app.language import lazy_gettext as _l
from app.models import InstanceStatus, Port, Purpose
from app.web.connect import Kit

NAMES = {Purpose.SSH: _l("SSH"), Purpose.RDP: _l("Remote Desktop")}
WHY: dict[str, LazyString] = {
    "refused": _l("Nobody listens at its port."),
    "silent": _l("It takes connections and says nothing."),
    "closed": _l("It ends connections at once: the program for it does not run in the machine."),
    "other": _l("Something else answers at its port."),
}
START = {
    Purpose.SSH: "sudo systemctl restart ssh",
    Purpose.RDP: "sudo systemctl restart xrdp xrdp-sesman",
}


@dataclass(frozen=True)
class DoorShown:
    """One way in: `state` is a code of app.web.states."""

    name: str
    number: int
    state: str
    word: str
    why: str = ""
    todo: str = ""

    @property
    def final(self) -> bool:
        """Whether nothing more is expected to change by itself."""
        return self.state in {"in_use", "stopped"}


def doors(kit: Kit) -> list[DoorShown]:
    """SSH, and the desktop where there is one."""
    found = [(Purpose.SSH, kit.ssh), (Purpose.RDP, kit.rdp)]
    return [_door(kit, purpose, port) for purpose, port in found if port is not None]


def notes(kit: Kit) -> list[str]:
    """What the machine lacks, and what cannot be made in it."""
    said = []
    if kit.health.get("account") == "taken":
        said.append(
            _("The image needs the name %(login)s for itself, so there is no account of yours.", login=kit.login)
        )
    elif kit.health.get("account") == "failed":
        said.append(_("Your account in it could not be made. It is tried again by itself."))
    if lacks := kit.health.get("missing"):
        said.append(_("The image lacks: %(programs)s. Install them, then press Mend.", programs=", ".join(lacks)))
    return said


def _door(kit: Kit, purpose: Purpose, port: Port) -> DoorShown:
    name, code = str(NAMES[purpose]), kit.health.get(str(purpose))
    if kit.machine.status != InstanceStatus.RUNNING:
        return DoorShown(name, port.number, "stopped", _("The machine does not run"))
    if port.trouble:
        return DoorShown(name, port.number, "failed", _("No port"), _trouble(kit, port), _("Ask an admin."))
    if code is None:
        return DoorShown(name, port.number, "attaching", _("Not tried yet"))
    if code == "":
        return DoorShown(name, port.number, "in_use", _("Answers"))
    todo = _("Type in the machine: %(command)s. Or press Mend.", command=START[purpose])
    return DoorShown(name, port.number, "failed", _("Does not answer"), str(WHY.get(code, "")), todo)


def _trouble(kit: Kit, port: Port) -> str:
    if port.trouble == "busy":
        return _("Another program on %(host)s has port %(number)s. It is opened as soon as it is free.",
                 host=kit.machine.host.name, number=port.number)  # fmt: skip
    if port.trouble == "no_address":
        return _("%(host)s has no address %(address)s to listen at.",
                 host=kit.machine.host.name, address=kit.machine.host.listen)  # fmt: skip
    return port.trouble
