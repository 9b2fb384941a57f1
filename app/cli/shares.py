"""`berth share …`: directories of a host in people's machines."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import click

from app import queue
from app.cli import running
from app.cli.base import ACTOR, Failed, json_option, only_of_host, print_json, show, with_app
from app.cli.work import ASK_EVERY, is_alive
from app.extensions import transaction
from app.models import Host, SharedDirectory
from app.services import accounts, inventory, share_findings, shares
from app.services.shares import Terms

PATIENCE = 60.0  # seconds for the agent's look


@click.group()
def share() -> None:
    """Directories of a host that people see in their machines."""


@share.command()
@click.argument("name")
@click.option("--host", "host_name", required=True)
@click.option("--source", required=True, help="The directory on the host.")
@click.option("--path", required=True, help="Where it is in the machines.")
@click.option("--write", is_flag=True, help="Everybody writes into the same directory.")
@click.option("--own", is_flag=True, help="Each person has a directory of their own in it.")
@click.option("--for", "people", multiple=True, help="A username; once for each. Without: everybody.")
@json_option
@with_app
def add(
    name: str, host_name: str, source: str, path: str, write: bool, own: bool, people: tuple[str, ...], as_json: bool
) -> None:
    """Share a directory; returns when the host has looked at it and it is switched on."""
    with transaction():
        host = inventory.host(host_name)
        users = tuple(accounts.get(person) for person in people) or None
        shares.add(ACTOR, host, Terms(name, source, path, not (write or own), own, users))
    found = _looked_at(host_name, name)
    if not found.fit:
        raise Failed(f"{name} is added, not switched on. " + _why_not(found))
    with transaction():
        host = inventory.host(host_name)
        shares.switch(ACTOR, host, shares.get(host, name), on=True)
    queue.wake(host_name)
    with transaction():
        row = _row(shares.get(inventory.host(host_name), name))
    if as_json:
        print_json(row)
        return
    click.echo(f"{name} is on: {source} of {host_name} is {path} in the machines.")


@share.command("list")
@only_of_host
@json_option
@with_app
def list_(host_name: str, as_json: bool) -> None:
    """All shared directories."""
    with transaction():
        found = shares.of_host(inventory.host(host_name)) if host_name else shares.everywhere()
        rows = [_row(one) for one in found]
    show(rows, as_json=as_json, empty="No shared directories yet.")


@share.command()
@click.argument("name")
@click.option("--host", "host_name", required=True)
@with_app
def remove(name: str, host_name: str) -> None:
    """Take a directory out of all machines; what lies in it stays on the host."""
    with transaction():
        host = inventory.host(host_name)
        share = shares.get(host, name)
        shares.retire(ACTOR, host, share)
    left = _wait(host_name, lambda host: next((one for one in shares.leaving(host) if one.id == share.id), None))
    if left is not None:
        why = left.trouble or "nobody has looked"
        raise Failed(
            f"{name} is retired, and a machine may still have it ({why}). The agent goes on: berth agent {host_name}"
        )
    click.echo(f"{name} is retired.")


def _looked_at(host_name: str, name: str) -> SharedDirectory:
    """The directory once the host's agent has looked at it."""

    def unseen(host: Host) -> SharedDirectory | None:
        return None if (found := shares.get(host, name)).checked_at is not None else found

    if _wait(host_name, unseen) is not None:
        raise Failed(f"{name} is added, and nobody has looked at it. Start the agent: berth agent {host_name}")
    with transaction():
        return shares.get(inventory.host(host_name), name)


def _wait(host_name: str, left: Callable[[Host], SharedDirectory | None]) -> SharedDirectory | None:
    """What is `left` for the host's agent to do, None as a rule; where no agent is alive, this does it itself, once."""
    queue.wake(host_name)
    deadline, helped = time.monotonic() + PATIENCE, False
    while True:
        with transaction():
            host = inventory.host(host_name)
            found, alive = left(host), is_alive(host)
        if found is None or time.monotonic() > deadline or (helped and not alive):
            return found
        if not alive:
            click.echo(f"No agent of {host_name} is alive: looking from here.", err=True)
            running.share(host_name)
            helped = True
        else:
            time.sleep(ASK_EVERY)


def _why_not(found: SharedDirectory) -> str:
    texts = [(item.what, item.detail, item.fix) for item in share_findings.findings(found) if item.bad]
    return " ".join(f"{what} ({detail}) {fix}" if detail else f"{what} {fix}" for what, detail, fix in texts).strip()


def _row(found: SharedDirectory) -> dict[str, Any]:
    return {
        "host": found.host.name,
        "name": found.name,
        "source": found.source,
        "path": found.path,
        "access": "read" if found.read_only else "own" if found.own else "write",
        "people": None if found.for_everyone else sorted(user.username for user in found.users),
        "on": found.active,
        "fit": found.fit,
        "trouble": found.trouble,
    }


COMMANDS = (share,)
