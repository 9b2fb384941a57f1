"""What the commands share: the app around them, and how they print."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import click

from app.config import Settings
from app.drivers.base import LxdDriver
from app.drivers.connect import connect
from app.errors import InvalidInput
from app.extensions import NOT_RUNNING, lab_zone, settings
from app.models import Host, Role, User
from app.services import audit
from app.services.windows import YEARS

ACTOR = audit.CLI

Command = TypeVar("Command", bound=Callable[..., Any])

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
only_of_host = click.option("--host", "host_name", default="", help="Only this host's.")


class Failed(Exception):
    """A command could not do what it was asked; the text says what and what to do."""


def with_app(command: Command) -> Command:
    """Run the command inside the app: settings, database. Raises BadSettings, or Failed without a database."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        from app import create_core  # noqa: PLC0415 - `berth --help` needs no portal

        given = Settings.load()
        if not given.database_url:
            raise Failed(NOT_RUNNING)
        with create_core(given).app_context():
            try:
                return command(*args, **kwargs)
            except InvalidInput as error:
                if option := _option_of(error.field):
                    raise Failed(f"{option}: {error}") from error
                raise

    return run  # type: ignore[return-value]


def _option_of(field: str) -> str:
    """The option of this command from which the field came, or ""."""
    option = f"--{field.removesuffix('_gib').replace('_', '-')}"
    return option if any(option in known.opts for known in click.get_current_context().command.params) else ""


def somebody() -> User:
    """Whoever types the command, for the audit's sake: may do all, is no person and is not kept."""
    return User(username=ACTOR, role=Role.ADMIN)


def driver_of(host: Host) -> LxdDriver:
    """The driver of a host; nothing is contacted yet."""
    return connect(host.endpoint, host.name, settings().data_dir)


def moment(text: str, option: str) -> datetime:
    """A day or a time as typed after an option, in the lab's zone where none is named. Raises click.UsageError."""
    try:
        found = datetime.fromisoformat(text)
        if found.year not in YEARS:  # with no other can times be added to and taken from one
            raise click.UsageError(f"{option}: {text!r} is too far off: the year is from {YEARS[0]} to {YEARS[-1]}.")
        return (found if found.tzinfo else found.replace(tzinfo=lab_zone())).astimezone(UTC)
    except ValueError:
        raise click.UsageError(
            f"{option}: {text!r} is neither a day such as 2026-11-24 nor an ISO-8601 time."
        ) from None


def print_json(data: object) -> None:
    """Data for programs."""
    click.echo(json.dumps(data, ensure_ascii=False, indent=2))


def print_table(rows: Sequence[dict[str, Any]], empty: str) -> None:
    """Rows as columns of text, or the sentence `empty`. What people wrote cannot steer the terminal."""
    if not rows:
        click.echo(empty)
        return
    table = [[name.replace("_", " ").upper() for name in rows[0]]]
    table += [[_cell(value) for value in row.values()] for row in rows]
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    for line in table:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def show(rows: Sequence[dict[str, Any]], *, as_json: bool, empty: str) -> None:
    """Rows as JSON or as a table."""
    if as_json:
        print_json(list(rows))
    else:
        print_table(rows, empty)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return _cell(", ".join(value))
    return printable(f"{value:g}" if isinstance(value, float) else str(value))


def printable(text: str) -> str:
    """What people or machines wrote, so that it cannot steer the terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)
