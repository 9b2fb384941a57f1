"""`berth host …`."""

from __future__ import annotations

from typing import Any

import click

from app import clock
from app.cli import init
from app.cli.base import ACTOR, driver_of, json_option, print_json, settings, show, with_app
from app.drivers.connect import connect
from app.extensions import transaction
from app.models import Gpu, Host
from app.services import inventory


@click.group()
def host() -> None:
    """Workstations."""


@host.command()
@click.argument("name")
@click.option("--lxd", "endpoint", required=True, help="LXD's socket or https address; sim: for a simulated host.")
@json_option
@with_app
def add(name: str, endpoint: str, as_json: bool) -> None:
    """Take a workstation into Berth, with the GPUs and images its LXD has."""
    driver = connect(endpoint, name, settings().data_dir)
    driver.server()  # an address that does not answer is refused before anything is written
    with transaction():
        added = inventory.add_host(ACTOR, name, endpoint, driver)
        gpus = [gpu for gpu, _host in inventory.gpus(added.id)]
    _tell(added, gpus, as_json)


@host.command()
@click.argument("name")
@json_option
@with_app
def sync(name: str, as_json: bool) -> None:
    """Bring a workstation's GPUs, images and LXD version up to date."""
    with transaction():
        target = inventory.host(name)
        gpus = inventory.sync_host(ACTOR, target, driver_of(target))
    _tell(target, gpus, as_json)


@host.command("list")
@json_option
@with_app
def list_(as_json: bool) -> None:
    """The workstations."""
    with transaction():
        gpus = inventory.gpus()
        rows = [_row(found, [gpu for gpu, owner in gpus if owner.id == found.id]) for found in inventory.hosts()]
    show(rows, as_json=as_json, empty="No hosts yet. Add one: berth host add NAME --lxd SOCKET_OR_URL")


def _tell(found: Host, gpus: list[Gpu], as_json: bool) -> None:
    row = _row(found, gpus)
    if as_json:
        print_json({**row, "gpus": [_gpu(gpu) for gpu in gpus]})
        return
    click.echo(f"{found.name}: LXD {found.lxd_version}, {len(gpus)} GPUs, {len(found.images)} images.")
    for gpu in gpus:
        click.echo(f"  GPU {gpu.minor}  {gpu.pci_address}  {gpu.model}")


def _row(found: Host, gpus: list[Gpu]) -> dict[str, Any]:
    seen = None if found.seen_at is None else round((clock.now() - found.seen_at).total_seconds())
    return {
        "name": found.name,
        "lxd": found.endpoint,
        "lxd_version": found.lxd_version,
        "gpus": len(gpus),
        "images": [image["alias"] for image in found.images],
        "enabled": found.enabled,
        "agent_seen_seconds_ago": seen,
        "trouble": found.trouble,
    }


def _gpu(gpu: Gpu) -> dict[str, Any]:
    return {"id": gpu.id, "model": gpu.model, "pci_address": gpu.pci_address, "minor": gpu.minor, "state": gpu.state}


host.add_command(init.init)

COMMANDS = (host,)
