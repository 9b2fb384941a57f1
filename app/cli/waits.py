"""`berth wait …`: who waits for GPUs."""

from __future__ import annotations

import click

from app.cli.base import json_option, show, with_app
from app.extensions import transaction
from app.services.waits import line


@click.group()
def wait() -> None:
    """The waiting list."""


@wait.command("list")
@json_option
@with_app
def list_(as_json: bool) -> None:
    """Everybody who waits, first come first, and what is offered to whom."""
    with transaction():
        found = line.everybody()
    rows = [
        {
            "id": one.id,
            "user": one.user.username,
            "account": one.account or one.user.username,
            "state": str(one.state),
            "gpus": one.count,
            "model": one.model or "any",
            "host": one.host or "any",
            "hours": round(one.seconds / 3600, 2),
            "from": one.starts_at.isoformat(timespec="seconds"),
            "to": one.ends_at.isoformat(timespec="seconds"),
            "joined": one.created_at.isoformat(timespec="seconds"),
            "offered_until": one.decide_by.isoformat(timespec="seconds") if one.decide_by else None,
        }
        for one in found
    ]
    show(rows, as_json=as_json, empty="Nobody waits.")


COMMANDS = (wait,)
