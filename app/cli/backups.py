"""`berth instance backup`: a machine's disk as a file, here."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import click

from app.cli.base import Failed, somebody, with_app
from app.cli.work import carry_out
from app.extensions import settings, transaction
from app.services import backups, instances, inventory

PATIENCE = 60.0  # seconds without a byte


@click.command()
@click.argument("name")
@click.option("--snapshot", default="", help="One of its snapshots; by itself the machine as it is now.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False, writable=True), required=True)
@with_app
def backup(name: str, snapshot: str, output: Path) -> None:
    """Write all that is on a machine's disk into a file that `lxc import` takes."""
    if output.exists():
        raise click.UsageError(f"{output} exists already.")
    if not output.parent.is_dir():  # said before the machine is packed, which takes long
        raise click.UsageError(f"There is no directory {output.parent} to write {output.name} into.")
    if not os.access(output.parent, os.W_OK | os.X_OK):
        raise click.UsageError(f"The directory {output.parent} cannot be written to.")
    with transaction():
        target = instances.get(None, name)
        operation = backups.request(somebody(), target, snapshot)
    carry_out(operation, target.host)
    here = backups.file_of(settings().data_dir, target.host.name, int(operation.details["backup"]))
    part = output.with_name(f"{output.name}.part")
    try:
        if here.exists():
            shutil.copyfile(here, part)
        else:
            _fetch(name, target.host.name, part)
        part.replace(output)
    finally:
        part.unlink(missing_ok=True)
    with transaction():
        backups.remove(somebody(), instances.get(None, name))
    click.echo(f"{output}: {output.stat().st_size} bytes. Take it in elsewhere: lxc import {output}")


def _fetch(name: str, host_name: str, into: Path) -> None:
    """From the host's agent, which is elsewhere."""
    with transaction():
        url = inventory.host(host_name).terminal_url
        key = backups.ticket(None, instances.get(None, name))
    try:
        with urlopen(f"http{url.removeprefix('ws')}?backup={key}", timeout=PATIENCE) as answer, into.open("wb") as file:  # noqa: S310 - the agent's own
            shutil.copyfileobj(answer, file, 1 << 20)
            whole = int(answer.headers["Content-Length"]) == file.tell()
    except (URLError, OSError) as error:
        raise Failed(f"The agent of {host_name} did not hand it out at {url or 'no address'}: {error}") from error
    if not whole:
        raise Failed(f"The agent of {host_name} handed out only a part of it. Try again.")


COMMANDS = (backup,)
