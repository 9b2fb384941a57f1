"""`berth instance …`: asks for the work, waits until it is done, and does it here where no agent is alive."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import click

from app import clock, queue
from app.cli import running
from app.cli.base import Failed, json_option, print_json, settings, show, with_app
from app.extensions import transaction
from app.models import Host, Instance, Operation, OperationKind, OperationState
from app.services import accounts, instances, inventory, operations

ASK_EVERY = 0.2  # seconds


@click.group()
def instance() -> None:
    """People's machines."""


@instance.command()
@click.argument("name")
@click.option("--host", "host_name", required=True)
@click.option("--image", required=True, help="An image's alias on that host.")
@click.option("--owner", required=True, help="The username of the person whose machine it will be.")
@click.option("--cpus", type=int, default=4, show_default=True)
@click.option("--memory", type=int, default=8, show_default=True, help="GiB")
@click.option("--disk", type=int, default=20, show_default=True, help="GiB")
@json_option
@with_app
def create(name: str, host_name: str, image: str, owner: str, cpus: int, memory: int, disk: int, as_json: bool) -> None:
    """Make a machine; returns when it runs."""
    with transaction():
        host = inventory.host(host_name)
        operation = instances.request_create(
            None,
            accounts.get(owner),
            name=name,
            host=host,
            image=image,
            cpus=cpus,
            memory_gib=memory,
            disk_gib=disk,
        )
    carry_out(operation, host)
    _tell(name, f"{name} runs on {host_name}.", as_json)


@instance.command("list")
@click.option("--host", "host_name", default="", help="Only this host's.")
@json_option
@with_app
def list_(host_name: str, as_json: bool) -> None:
    """All machines."""
    with transaction():
        host_id = inventory.host(host_name).id if host_name else None
        rows = [_row(found) for found in instances.everyones(host_id)]
    show(rows, as_json=as_json, empty="No machines yet.")


@instance.command()
@click.argument("name")
@json_option
@with_app
def start(name: str, as_json: bool) -> None:
    """Start a machine; returns when it runs."""
    _switch(name, OperationKind.START)
    _tell(name, f"{name} runs.", as_json)


@instance.command()
@click.argument("name")
@click.option("--force", is_flag=True, help="Do not wait for its programs to end.")
@json_option
@with_app
def stop(name: str, force: bool, as_json: bool) -> None:
    """Stop a machine; returns when it has stopped."""
    _switch(name, OperationKind.STOP, **({"force": True} if force else {}))
    _tell(name, f"{name} is stopped.", as_json)


@instance.command()
@click.argument("name")
@with_app
def delete(name: str) -> None:
    """Remove a machine with everything in it."""
    _switch(name, OperationKind.DELETE)
    click.echo(f"{name} is deleted.")


def _switch(name: str, kind: OperationKind, **details: bool) -> None:
    with transaction():
        target = instances.get(None, name)
        operation = instances.request(None, target, kind, **details)
    carry_out(operation, target.host)


def carry_out(operation: Operation, host: Host) -> None:
    """Return when the operation is done. Raises Failed with the operation's own error."""
    queue.wake(host.name)
    helped = False
    while True:
        with transaction():
            state, error = operations.outcome(operation.id)
            alive = is_alive(inventory.host(host.name))
        if state == OperationState.DONE:
            return
        if state == OperationState.FAILED:
            raise Failed(error or "The work failed; the host's agent has the details in its log.")
        if state == OperationState.QUEUED and not alive:
            if helped:
                raise Failed(f"The work is queued, and nobody does it. Start the agent: berth agent {host.name}")
            click.echo(f"No agent of {host.name} is alive: doing the work from here.", err=True)
            running.work(host.name)
            helped = True
            continue
        time.sleep(ASK_EVERY)


def is_alive(host: Host) -> bool:
    """Whether the host's agent has been seen lately: it shows itself at each tick."""
    lately = timedelta(seconds=3 * settings().tick + 5)
    return host.seen_at is not None and clock.now() - host.seen_at < lately


def _tell(name: str, sentence: str, as_json: bool) -> None:
    if not as_json:
        click.echo(sentence)
        return
    with transaction():
        print_json(_row(instances.get(None, name)))


def _row(found: Instance) -> dict[str, Any]:
    return {
        "name": found.name,
        "host": found.host.name,
        "owner": found.owner.username,
        "status": str(found.status),
        "image": found.image,
        "cpus": found.cpus,
        "memory_mib": found.memory_mib,
        "disk_gib": found.disk_gib,
    }


COMMANDS = (instance,)
