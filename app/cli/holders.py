"""`berth holders HOST`: who holds which GPU, seen now, and the end of a process of the host itself that holds one.

Works without PostgreSQL and Valkey: it is what is left when a GPU has to be free and nothing else answers.
"""

from __future__ import annotations

import os
import syslog
from dataclasses import replace
from typing import Any

import click
from sqlalchemy.exc import SQLAlchemyError

from app.cli.base import ACTOR, Failed, json_option, print_json, print_table
from app.cli.sight import Sight, look
from app.config import Settings
from app.drivers.kernel import HOST, Holder, Parted
from app.extensions import transaction
from app.services import audit, drift, inventory

SECONDS = 5.0  # for a process to end when asked, and again when killed


@click.command()
@click.argument("name", metavar="HOST")
@click.option("--end", "pid", type=click.IntRange(min=1), metavar="PID", help="End this process of the host itself.")
@click.option("--yes", is_flag=True, help="With --end: do not ask.")
@json_option
def holders(name: str, pid: int | None, yes: bool, as_json: bool) -> None:
    """Who holds which GPU of this machine now, in machines and on the host itself. Run it there, as root.

    Berth leaves the host's own processes alone. With --end, one of them is asked to end, and killed if it still holds
    a GPU some seconds later. Neither the database nor Valkey has to be there.
    """
    with look(Settings.load(), name) as sight:
        for note in sight.notes:
            click.echo(note, err=True)
        if pid is not None:
            _end(sight, pid, yes=yes, as_json=as_json)
        elif as_json:
            doubts = {drift.shown(where): drift.shown(why) for where, why in sight.scan.doubts.items()}
            state = {"host": sight.host, "database": sight.want is not None, "lxd": sight.lxd}
            print_json({**state, "holders": sight.rows(), "doubts": doubts})
        else:
            _tell(sight)


def _tell(sight: Sight) -> None:
    rows = [
        {
            "gpu": row["gpu"] or "any",
            "where": row["instance"] or "the host",
            "process": row["pid"],
            "name": row["name"],
            "how": row["how"],
            "booked": {True: "yes", False: "no", None: "unknown"}[row["booked"]],
        }
        for row in sight.rows()
    ]
    print_table(rows, f"Nobody holds a GPU of {sight.host}.")
    for where, why in sight.scan.doubts.items():
        click.echo(f"could not be looked at: {drift.shown(where) or 'a process'}: {drift.shown(why)}")


def _end(sight: Sight, pid: int, *, yes: bool, as_json: bool) -> None:
    holder = _found(sight, pid)
    gpus = [gpu.pci_address for gpu in sight.gpus if gpu.numbers & holder.numbers]
    name = drift.shown(holder.name)
    if not yes:
        click.confirm(f"End {name} (process {pid} of the host), which holds {', '.join(gpus)}?", abort=True, err=True)
    outcome = sight.kernel.end_on_host(holder, SECONDS)
    _record(sight, holder, gpus, outcome)
    if outcome == Parted.STAYS:
        raise Failed(f"Not even SIGKILL ends {name} ({pid}): it waits within the kernel. Restarting the host will.")
    if as_json:
        print_json({"pid": pid, "name": name, "gpus": gpus, "outcome": str(outcome)})
    elif outcome == Parted.LET_GO:
        click.echo(f"{name} ({pid}) goes on, and holds no GPU of {sight.host} any more.")
    else:
        click.echo(f"{name} ({pid}) has ended.")


def _found(sight: Sight, pid: int) -> Holder:
    """The process, with all that it holds. Raises Failed for one that is not the host's, or holds nothing."""
    held = [one for one in sight.scan.holders if one.pid == pid and one.numbers]
    if not held:
        raise Failed(f"Process {pid} holds no GPU of {sight.host}: it is left alone.")
    if held[0].instance != HOST:
        where = drift.shown(held[0].instance)
        raise Failed(f"Process {pid} is in the machine {where}: `berth plan {sight.host}` says what Berth does.")
    return replace(held[0], numbers=frozenset().union(*(one.numbers for one in held)))


def _record(sight: Sight, holder: Holder, gpus: list[str], outcome: Parted) -> None:
    """Put it on record: in the audit, or where there is no database in the machine's own log."""
    details: dict[str, Any] = {"host": sight.host, "process": holder.pid, "name": holder.name, "how": str(holder.how)}
    try:
        if sight.want is not None:
            with transaction():
                for gpu, _host in inventory.gpus(sight.want.host_id):
                    if gpu.pci_address in gpus:
                        more = details | {"pci_address": gpu.pci_address, "outcome": str(outcome)}
                        audit.record(ACTOR, "gpu.host_process_ended", f"gpu:{gpu.id}", **more)
            return
    except SQLAlchemyError:
        pass
    words = f"berth holders {sight.host}: {drift.shown(holder.name)} ({holder.pid}), which held {', '.join(gpus)}"
    syslog.syslog(syslog.LOG_WARNING, f"{words}: {outcome}, by uid {os.getuid()} {os.environ.get('SUDO_USER', '')}")
    click.echo("The database is away: this is on record in this machine's system log, not in the audit.", err=True)


COMMANDS = (holders,)
