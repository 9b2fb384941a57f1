"""`berth report`: what was booked, attached and busy, and who waited, as the page has it."""

from __future__ import annotations

import csv
import sys
from datetime import timedelta
from typing import Any

import click

from app import clock
from app.cli.base import json_option, moment, show, with_app
from app.extensions import lab_zone, transaction
from app.services import people, usage
from app.services.reports import report as reports
from app.services.reports.pieces import Scope
from app.services.reports.report import Group, Row
from app.services.reports.spans import LONGEST, Span
from app.services.reports.table import AMOUNTS, WAITS, amounts, waited


@click.command()
@click.option(
    "--from",
    "start",
    default="",
    help="An ISO-8601 time, or the beginning of a day of the lab's; default: 30 days before --to.",
)
@click.option(
    "--to", "end", default="", help="The same, not included: --to 2026-12-01 is all of November. Default: now."
)
@click.option("--group", type=click.Choice([one.value for one in Group]), default="person", show_default=True)
@click.option("--format", "form", type=click.Choice(["table", "csv", "json"]), default="table", show_default=True)
@click.option("--waits", is_flag=True, help="Who waited on the waiting list, and how long, in place of GPU-hours.")
@json_option
@with_app
def report(start: str, end: str, group: str, form: str, waits: bool, as_json: bool) -> None:
    """GPU-hours booked, attached and busy, by person or by something else; who wasted most comes first.

    Wasted = not attached + idle. What Berth gave late or never is "not given", and nobody's waste. What
    nobody looked at is "no data", neither busy nor idle."""
    until = moment(end, "--to") if end else clock.now()
    since = moment(start, "--from") if start else until - timedelta(days=30)
    if until <= since or until - since > LONGEST:
        raise click.UsageError(f"--to must be later than --from, by {LONGEST.days} days at most.")
    by, span = Group(group), Span.of(since, until, lab_zone(), clock.now())
    if waits and reports.waited_by(by) != by:
        raise click.UsageError("Those who waited go by person, team, host or model.")
    with transaction():
        rows = _waiting(span, by) if waits else _usage(span, by)
    if form == "csv" and not as_json:
        own = list(WAITS) if waits else list(AMOUNTS)
        heads = ["user", "name"] + ([] if waits else ["bookings"]) if by == Group.PERSON else [group]
        writer = csv.writer(sys.stdout)
        writer.writerow(heads + own)
        writer.writerows([_harmless(value) for value in row.values()] for row in rows)
    else:
        empty = "Nobody waited in that time." if waits else "Nobody booked anything in that time."
        show(rows, as_json=as_json or form == "json", empty=empty)


def _usage(span: Span, by: Group) -> list[dict[str, Any]]:
    found = reports.rows(span, by, Scope())
    whose = usage.bookings_of(span.start, span.until, [row.key for row in found]) if by == Group.PERSON else {}
    return [_cells(row, by, whose) for row in found]


def _waiting(span: Span, by: Group) -> list[dict[str, Any]]:
    found = reports.waits(span, by, Scope()).rows
    names = people.usernames([row.key for row in found]) if by == Group.PERSON else {}
    return [
        ({"user": names[row.key], "name": row.name} if by == Group.PERSON else {by.value: row.name or "-"})
        | waited(row, 2)
        for row in found
    ]


def _cells(row: Row, by: Group, whose: dict[int, tuple[str, int]]) -> dict[str, Any]:
    """A row as it is printed; a person's has the username and how many bookings that were as well."""
    if by != Group.PERSON:
        return {by.value: row.name or "-", **amounts(row, 2)}
    username, bookings = whose.get(row.key, ("", 0))
    return {"user": username, "name": row.name, "bookings": bookings, **amounts(row, 2)}


def _harmless(value: object) -> object:
    """A name that a spreadsheet would take for a formula stays a name."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


COMMANDS = (report,)
