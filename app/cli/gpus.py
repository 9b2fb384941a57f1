"""`berth gpu …`."""

from __future__ import annotations

from typing import Any

import click

from app import queue
from app.cli.base import ACTOR, Failed, json_option, print_json, show, with_app
from app.drivers.base import pci_address
from app.errors import NotFound
from app.extensions import transaction
from app.models import Gpu, GpuState, Host
from app.services import inventory
from app.services.quarantine import release_quarantine


@click.group()
def gpu() -> None:
    """GPUs."""


@gpu.command("list")
@click.option("--host", "name", metavar="HOST", help="This workstation's only.")
@json_option
@with_app
def list_(name: str | None, as_json: bool) -> None:
    """The GPUs, and why one is in quarantine."""
    with transaction():
        host_id = inventory.host(name).id if name else None
        rows = [row(found, owner) for found, owner in inventory.gpus(host_id)]
    show(rows, as_json=as_json, empty="No GPUs.")


@gpu.command()
@click.argument("host")
@click.argument("address", metavar="PCI_ADDRESS")
@click.option("--how", default="", help="How you made sure that it is free; kept in the audit.")
@json_option
@with_app
def release(host: str, address: str, how: str, as_json: bool) -> None:
    """Let a GPU that is in quarantine be booked again."""
    with transaction():
        target = inventory.host(host)
        found = _gpu(target, address)
        done = release_quarantine(ACTOR, found, how)
    if found.state != GpuState.IN_SERVICE:
        raise Failed(f"GPU {found.minor} of {host} is not in quarantine but out of service; see its host's page.")
    if done:
        queue.wake(host)
    if as_json:
        print_json(row(found, target))
    else:
        click.echo(f"GPU {found.minor} of {host} {'is released from' if done else 'is not in'} quarantine.")


def row(found: Gpu, host: Host) -> dict[str, Any]:
    """One GPU as data."""
    since = found.quarantined_at
    return {
        "host": host.name,
        "id": found.id,
        "minor": found.minor,
        "pci_address": found.pci_address,
        "model": found.model,
        "state": str(found.state),
        "quarantined_at": since.isoformat(timespec="seconds") if since else None,
        "reason": found.quarantine_reason,
    }


def _gpu(host: Host, address: str) -> Gpu:
    try:
        wanted = pci_address(address)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="PCI_ADDRESS") from error
    for found, _host in inventory.gpus(host.id):
        if found.pci_address == wanted:
            return found
    raise NotFound(f"There is no GPU {wanted} on {host.name}.")


COMMANDS = (gpu,)
