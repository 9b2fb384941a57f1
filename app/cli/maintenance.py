"""`berth maintenance …`."""

from __future__ import annotations

from typing import Any

import click

from app import clock, queue
from app.cli.base import Failed, json_option, moment, print_json, show, somebody, with_app
from app.extensions import settings, transaction
from app.models import Gpu, Host, Maintenance
from app.services import inventory
from app.services import maintenance as services
from app.services.maintenance import Change
from app.services.windows import snapped

LARGEST = 2**31 - 1  # number of one that the database can be asked for


@click.group()
def maintenance() -> None:
    """GPUs kept free for work on a workstation."""


@maintenance.command("list")
@click.argument("host")
@json_option
@with_app
def list_(host: str, as_json: bool) -> None:
    """What is going on or planned."""
    with transaction():
        rows = [row(found) for found in services.to_come(inventory.host(host))]
    show(rows, as_json=as_json, empty="No maintenance is planned.")


@maintenance.command()
@click.argument("host")
@click.option("--from", "start", metavar="TIME", help="As 2026-11-03T12:00, in the lab's zone; now if not given.")
@click.option("--to", "end", metavar="TIME", required=True, help="When the GPUs can be booked again.")
@click.option("--gpu", "minors", type=int, multiple=True, metavar="NUMBER", help="One of its GPUs; all if not given.")
@click.option("--reason", default="", help="What for: whose booking changes is told.")
@click.option("--dry-run", is_flag=True, help="Only show what would become of the bookings in the way.")
@json_option
@with_app
def add(
    host: str, start: str | None, end: str, minors: tuple[int, ...], reason: str, *, dry_run: bool, as_json: bool
) -> None:
    """Keep GPUs free: bookings in the way move, end earlier or are cancelled with their hours given back."""
    window = snapped(moment(start, "--from") if start else None, moment(end, "--to"), clock.now(), settings().slot)
    with transaction():
        place = inventory.host(host)
        gpus = _chosen(place, minors)
        found = services.plan(gpus, window)
        rows = [fate(change) for change in found]
        hosts: set[str] = set()
        if not dry_run:
            _made, hosts = services.schedule(somebody(), place, gpus, window, reason, services.fingerprint(found))
    for name in sorted(hosts):
        queue.wake(name)
    show(rows, as_json=as_json, empty="No booking is in the way.")
    if not dry_run and not as_json:
        click.echo(f"Planned: {len(gpus)} GPUs of {host} are kept free.")


@maintenance.command()
@click.argument("number", type=click.IntRange(1, LARGEST))
@json_option
@with_app
def lift(number: int, as_json: bool) -> None:
    """Let its GPUs be booked again, before or during the work; the number is that of `maintenance list`."""
    with transaction():
        found = services.lift(somebody(), number)
        host, data = found.host.name, row(found)
    queue.wake(host)
    if as_json:
        print_json(data)
    else:
        click.echo(f"Maintenance {number} of {host} is over.")


def _chosen(place: Host, minors: tuple[int, ...]) -> list[Gpu]:
    """Its GPUs of these numbers, or all of them. Raises Failed for a number that it does not have."""
    gpus = [gpu for gpu, _host in inventory.gpus(place.id)]
    there = [gpu.minor for gpu in gpus]
    if lacking := sorted(set(minors).difference(there)):
        has = f"It has {_listed(there)}." if there else f"Berth knows none of it: berth host sync {place.name}"
        raise Failed(f"{place.name} has no GPU {_listed(lacking)}. {has}")
    return [gpu for gpu in gpus if not minors or gpu.minor in minors]


def _listed(numbers: list[int]) -> str:
    return ", ".join(str(number) for number in sorted(numbers))


def row(found: Maintenance) -> dict[str, Any]:
    """One as data."""
    return {
        "id": found.id,
        "host": found.host.name,
        "gpus": [str(block.gpu.minor) for block in found.blocks],
        "starts_at": found.starts_at.isoformat(timespec="seconds"),
        "ends_at": found.ends_at.isoformat(timespec="seconds"),
        "reason": found.reason,
        "by": found.actor,
    }


def fate(change: Change) -> dict[str, Any]:
    """What becomes of a booking, as data."""
    return {
        "booking": change.booking.id,
        "owner": change.booking.user.username,
        "becomes": str(change.fate),
        "gpus": [f"{gpu.host.name}/{gpu.minor}" for gpu in change.gpus],
        "ends_at": change.ends_at.isoformat(timespec="seconds") if change.ends_at else None,
    }


COMMANDS = (maintenance,)
