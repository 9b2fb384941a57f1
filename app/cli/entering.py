"""`berth instance password` and `berth instance key`: a way into a machine for its owner."""

from __future__ import annotations

import time
from pathlib import Path

import click

from app import queue
from app.cli import running
from app.cli.base import ACTOR, Failed, somebody, with_app
from app.cli.work import ASK_EVERY, carry_out, is_alive
from app.extensions import transaction
from app.models import Instance, InstanceStatus
from app.services import access, instances, inventory, machine_passwords, ports, ssh_keys

PATIENCE = 60.0  # seconds for the host's agent to write a key


@click.command()
@click.argument("name")
@with_app
def password(name: str) -> None:
    """Give the owner's account in a machine a new password, and print it alone."""
    with transaction():
        target = instances.get(None, name)
        operation, text = machine_passwords.request(somebody(), target)
    carry_out(operation, target.host)
    click.echo(text)


@click.command()
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@with_app
def key(name: str, file: Path) -> None:
    """Add a public key to those of a machine's owner; returns when it is in the machine, if that runs."""
    with file.open("rb") as opened:
        text = opened.read(ssh_keys.LONGEST + 1).decode(errors="replace")
    with transaction():
        target = instances.get(None, name)
        added = ssh_keys.add(ACTOR, target.owner, text)
        if not ports.of_machine(target.id):  # made before there were any
            access.mend(somebody(), target)
        hosts = ssh_keys.hosts_of(target.owner_id)
    for host in hosts:
        queue.wake(host)
    if target.status == InstanceStatus.RUNNING:
        _await_key(target)
    click.echo(f"{added.fingerprint} lets {target.owner.username} into {name}.")


def _await_key(target: Instance) -> None:
    """Return when the host's agent has written the keys, or when it was done here where no agent is alive."""
    helped, deadline = False, time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with transaction():
            if access.has_keys(target.id):
                return
            alive = is_alive(inventory.host(target.host.name))
        if not alive and not helped:
            click.echo(f"No agent of {target.host.name} is alive: doing the work from here.", err=True)
            running.start_work(target.host.name).wait()
            helped = True
        time.sleep(ASK_EVERY)
    raise Failed(f"The key is kept, and not in {target.name} yet. Look at the log of the host's agent.")


COMMANDS = (password, key)
