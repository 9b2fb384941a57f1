"""How one reaches a machine, in the words that one pastes: the SSH command, its configuration, the .rdp file."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from app.errors import Conflict
from app.extensions import db
from app.language import gettext as _
from app.models import Instance, InstanceStatus, Port, Purpose, Template
from app.services import access, ports, ssh_keys
from app.services.rdp_signing import Signer
from app.web.rdp import rdp_file, signer

PREFERRED = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ssh-rsa")


@dataclass(frozen=True)
class Kit:
    """One machine (host and owner loaded) and its ports."""

    machine: Instance
    ports: dict[Purpose, Port]
    desktop: bool  # whether it has one, or is meant to

    @property
    def address(self) -> str:
        """Where people reach its host."""
        return self.machine.host.address or self.machine.host.name

    @property
    def login(self) -> str:
        """The account inside."""
        return self.machine.owner.username

    @property
    def health(self) -> dict[str, Any]:
        """What the agent last saw: see app.services.access."""
        return self.machine.health

    @property
    def ssh(self) -> Port | None:
        """The port that leads to SSH."""
        return self.ports.get(Purpose.SSH)

    @property
    def rdp(self) -> Port | None:
        """The port that leads to the desktop, where there is one."""
        return self.ports.get(Purpose.RDP) if self.desktop else None

    @property
    def ssh_command(self) -> str:
        """To type into a terminal."""
        assert self.ssh is not None
        return f"ssh -p {self.ssh.number} {self.login}@{self.address}"

    @property
    def host_key(self) -> str:
        """The host key that is asked for, as the machine's agent read it; "" before that."""
        found = {key.partition(" ")[0]: key for key in access.host_keys("\n".join(self.health.get("host_keys", [])))}
        return next((found[kind] for kind in PREFERRED if kind in found), "")

    @property
    def fingerprint(self) -> str:
        """Of the host key, as ssh shows it."""
        return ssh_keys.fingerprint(self.host_key) if self.host_key else ""

    @property
    def alias(self) -> str:
        """The name that the host key has in known_hosts: not that of the host, which all its machines share."""
        return f"berth-{self.machine.name}"

    @property
    def known_hosts(self) -> str:
        """The line for ~/.ssh/known_hosts."""
        return f"{self.alias} {self.host_key}" if self.host_key else ""

    @property
    def ssh_config(self) -> str:
        """The block for ~/.ssh/config. The machine is trusted with nothing of one's own computer."""
        assert self.ssh is not None
        lines = [
            f"Host {self.machine.name}",
            f"    HostName {self.address}",
            f"    Port {self.ssh.number}",
            f"    User {self.login}",
            f"    HostKeyAlias {self.alias}",
            "    StrictHostKeyChecking yes",
            "    ForwardAgent no",
            "    ForwardX11 no",
        ]
        return "".join(f"{line}\n" for line in lines)

    @property
    def rdp_file(self) -> str:
        """For a Remote Desktop client."""
        assert self.rdp is not None
        return rdp_file(bracketed(self.address), self.rdp.number, self.login, self.publisher)

    @cached_property
    def publisher(self) -> Signer | None:
        """Who signs that file, if anybody does."""
        return signer()


def bracketed(address: str) -> str:
    """An address as it stands before a port."""
    return f"[{address}]" if ":" in address else address


def kit(machine: Instance) -> Kit:
    """The machine's ways in; host and owner must be loaded."""
    template = db.session.get(Template, machine.template_id) if machine.template_id else None
    desktop = (
        (template is not None and template.desktop)
        or machine.health.get("rdp") == ""
        or bool(machine.health.get("desktop"))
    )
    return Kit(machine, ports.of_machine(machine.id), desktop)


def with_ssh(machine: Instance) -> Kit:
    """The same, for a machine that has a port for SSH and whose host key is known. Raises Conflict."""
    found = kit(machine)
    if found.ssh is None or not found.host_key:
        raise Conflict(_("%(name)s has no SSH access set up yet.", name=machine.name), _hint(found))
    return found


def with_rdp(machine: Instance) -> Kit:
    """The same, for a machine that has a desktop. Raises Conflict."""
    found = kit(machine)
    if not found.ports:
        raise Conflict(_("%(name)s has no remote desktop set up yet.", name=machine.name), _hint(found))
    if found.rdp is None:
        raise Conflict(
            _("%(name)s has no remote desktop.", name=machine.name),
            _("Machines from a template with a desktop have one."),
        )
    return found


def _hint(found: Kit) -> str:
    if not found.ports:
        return _('Press "Set up the ways in" on its page.')
    if found.machine.status != InstanceStatus.RUNNING:
        return _("Start it first.")
    return _("This takes some seconds after it was made. Look at its page if it lasts.")
