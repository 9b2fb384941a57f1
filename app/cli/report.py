"""`berth report`: who booked how much, and how much of it a GPU was attached."""

from __future__ import annotations

import csv
import sys
from datetime import timedelta

import click

from app import clock
from app.cli.base import json_option, moment, show, with_app
from app.extensions import transaction
from app.services import usage


@click.command()
@click.option(
    "--from", "start", default="", help="A day (the lab's) or an ISO-8601 time; default: 30 days before --to."
)
@click.option("--to", "end", default="", help="The same; default: now.")
@click.option("--format", "form", type=click.Choice(["table", "csv"]), default="table", show_default=True)
@json_option
@with_app
def report(start: str, end: str, form: str, as_json: bool) -> None:
    """GPU-hours by person: booked, and attached."""
    until = moment(end, "--to") if end else clock.now()
    since = moment(start, "--from") if start else until - timedelta(days=30)
    if until <= since:
        raise click.UsageError("--to must be later than --from.")
    with transaction():
        people = usage.by_person(since, until)
    rows = [
        {
            "user": person.username,
            "name": person.name,
            "bookings": person.bookings,
            "reserved_hours": round(person.reserved / 3600, 2),
            "attached_hours": round(person.attached / 3600, 2),
        }
        for person in people
    ]
    if form == "csv" and not as_json:
        writer = csv.writer(sys.stdout)
        writer.writerow(["user", "name", "bookings", "reserved_hours", "attached_hours"])
        writer.writerows([_harmless(value) for value in row.values()] for row in rows)
    else:
        show(rows, as_json=as_json, empty="Nobody booked anything in that time.")


def _harmless(value: object) -> object:
    """A name that a spreadsheet would take for a formula stays a name."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


COMMANDS = (report,)
