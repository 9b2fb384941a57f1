"""`berth up`, `agent`, `reconcile`: each is the workers' program in this process's place."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import NoReturn

import click

from app.cli.base import json_option


@click.command()
def up() -> NoReturn:
    """Run everything: database, Valkey, portal and the hosts' agents, until Ctrl-C."""
    _become("up")


@click.command()
@click.argument("host")
def agent(host: str) -> NoReturn:
    """Run one host's agent in the foreground."""
    _become("agent", host)


@click.command()
@click.argument("host")
@json_option
def reconcile(host: str, as_json: bool) -> NoReturn:
    """Make one pass over a host now."""
    _become("pass", host, *(["--json"] if as_json else []))


def start_work(host: str) -> subprocess.Popen[bytes]:
    """Have a host's queued operations done from here."""
    return subprocess.Popen([sys.executable, "-m", "workers", "work", host])  # noqa: S603 - our own


def share(host: str) -> int:
    """Look after a host's shared directories here, once; the exit status."""
    return subprocess.run([sys.executable, "-m", "workers", "share", host], check=False).returncode  # noqa: S603 - our own


def _become(*arguments: str) -> NoReturn:
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "workers", *arguments])  # noqa: S606 - our own


COMMANDS = (up, agent, reconcile)
