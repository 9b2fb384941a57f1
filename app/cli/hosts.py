"""`berth host …`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from app import clock
from app.cli import init
from app.cli.base import ACTOR, driver_of, json_option, print_json, show, with_app
from app.drivers.connect import connect
from app.extensions import settings, transaction
from app.models import Gpu, Host, LibraryChoice
from app.services import desktops, inventory

Command = TypeVar("Command", bound=Callable[..., Any])


def _ways(command: Command) -> Command:
    """The options that say how people reach a host's machines."""
    for option in (
        click.option("--ports", "span", help="The host's ports that lead into machines, such as 22000-22999."),
        click.option("--listen", help="The host's IP address at which they listen; 0.0.0.0 for all of them."),
        click.option("--address", help="Where people reach the host: a name or an IP; by itself the host's name."),
    ):
        command = option(command)
    return command


@click.group()
def host() -> None:
    """Workstations."""


@host.command()
@click.argument("name")
@click.option("--lxd", "endpoint", required=True, help="LXD's socket or https address; sim: for a simulated host.")
@_ways
@json_option
@with_app
def add(name: str, endpoint: str, address: str | None, listen: str | None, span: str | None, as_json: bool) -> None:
    """Take a workstation into Berth, with the GPUs and images its LXD has."""
    driver = connect(endpoint, name, settings().data_dir)
    driver.server()  # an address that does not answer is refused before anything is written
    with transaction():
        added = inventory.add_host(ACTOR, name, endpoint, driver)
        if (address, listen, span) != (None, None, None):
            inventory.set_ways(ACTOR, added, address=address, listen=listen, span=span)
        gpus = [gpu for gpu, _host in inventory.gpus(added.id)]
    _tell(added, gpus, as_json)


@host.command("set")
@click.argument("name")
@_ways
@click.option(
    "--libraries",
    type=click.Choice([choice.value for choice in LibraryChoice]),
    help="How NVIDIA's libraries come into new machines; auto: the best way the host can do.",
)
@click.option("--desktop", type=int, help="The port of its own desktop, for admins; 0: it is not offered.")
@json_option
@with_app
def set_(
    name: str,
    address: str | None,
    listen: str | None,
    span: str | None,
    libraries: str | None,
    desktop: int | None,
    as_json: bool,
) -> None:
    """Change how people reach a workstation and its machines, or how NVIDIA's libraries come into new ones. Ports and
    libraries that machines have already stay theirs."""
    with transaction():
        target = inventory.host(name)
        if libraries is not None:
            inventory.set_libraries(ACTOR, target, LibraryChoice(libraries))
        if desktop is not None:
            desktops.offer(ACTOR, target, desktop or None)
        if (libraries, desktop) == (None, None) or (address, listen, span) != (None, None, None):
            inventory.set_ways(ACTOR, target, address=address, listen=listen, span=span)
        gpus = [gpu for gpu, _host in inventory.gpus(target.id)]
    if as_json:
        print_json(_row(target, gpus))
    else:
        where = f"at {target.address or target.name}, ports {target.first_port}-{target.last_port} of {target.listen}"
        click.echo(f"{target.name}: machines are reached {where}.")
        if libraries is not None:
            way = target.libraries_seen.get("way", "not known yet")
            click.echo(f"NVIDIA's libraries in new machines: {target.libraries}; so far they come by: {way}.")


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


@host.command()
@click.argument("name")
@with_app
def remove(name: str) -> None:
    """Take out a workstation that was added by mistake: one that is on record stays, and is not offered any more."""
    with transaction():
        inventory.remove_host(ACTOR, inventory.host(name))
    click.echo(f"{name} is removed.")


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
        "address": found.address or found.name,
        "listen": found.listen,
        "libraries": found.libraries,
        "libraries_by": found.libraries_seen.get("way", ""),
        "ports": f"{found.first_port}-{found.last_port}",
        "desktop": found.desktop_port,
    }


def _gpu(gpu: Gpu) -> dict[str, Any]:
    return {"id": gpu.id, "model": gpu.model, "pci_address": gpu.pci_address, "minor": gpu.minor, "state": gpu.state}


host.add_command(init.init)

COMMANDS = (host,)
