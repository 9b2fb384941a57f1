"""`berth …`: thin callers of services. Exit status 0 only when done, 1 when not, 2 for bad usage or settings."""

from __future__ import annotations

import logging
import os
import sys

import click
from sqlalchemy.exc import DBAPIError

from app.cli import (
    backups,
    doctor,
    entering,
    gpus,
    holders,
    hosts,
    machines,
    maintenance,
    metrics,
    people,
    plan,
    report,
    running,
    shares,
    templates,
    waits,
)
from app.cli.base import Failed
from app.config import BadSettings
from app.drivers.base import DriverError
from app.errors import DomainError
from app.extensions import database_trouble

__all__ = ["cli", "main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Berth: machines and GPU bookings for a lab."""


for module in (
    running, hosts, gpus, maintenance, holders, plan, people, machines, templates, shares, waits, report, metrics,
    doctor,
):  # fmt: skip
    for command in module.COMMANDS:
        cli.add_command(command)
for command in (*entering.COMMANDS, *backups.COMMANDS):
    machines.instance.add_command(command)


def main(arguments: list[str] | None = None) -> None:
    """The console script: every error as a line or two, never a stack trace."""
    logging.basicConfig(level=logging.ERROR, format="%(message)s", stream=sys.stderr)
    try:
        status = cli(arguments, prog_name="berth", standalone_mode=False) or 0
    except Exception as error:  # noqa: BLE001 - whoever types a command gets a sentence, whatever went wrong
        status = _tell(error)
    except KeyboardInterrupt:
        status = 130
    sys.exit(status)


def _tell(error: Exception) -> int:
    """Say what went wrong on stderr; the exit status."""
    if isinstance(error, click.ClickException):
        error.show()
        return error.exit_code
    if isinstance(error, click.Abort):
        return 130
    if isinstance(error, BrokenPipeError):  # `berth … | head`: nobody is left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    click.echo(_words(error), err=True)
    return 2 if isinstance(error, BadSettings) else 1


def _words(error: Exception) -> str:
    if isinstance(error, DriverError):
        return f"{error}\n{error.todo}".strip()
    if isinstance(error, DomainError | BadSettings | Failed):
        return str(error)
    if isinstance(error, DBAPIError):
        return database_trouble(error)
    return f"This failed inside Berth: {type(error).__name__}: {error}"
