"""`berth report`: what was booked, attached and busy, who waited or did not come, and what was taken by force, as the
page has it."""

from __future__ import annotations

import csv
import sys
from datetime import timedelta
from typing import Any

import click

from app import clock
from app.cli.base import json_option, moment, show, with_app
from app.extensions import lab_zone, transaction
from app.services import people, policy, usage
from app.services.reports import periods
from app.services.reports import report as reports
from app.services.reports.pieces import Scope
from app.services.reports.report import Group, Row
from app.services.reports.spans import LONGEST, Span
from app.services.reports.table import COLUMNS, Table, amounts, compared, listed, waited

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
EMPTY = {
    Table.USAGE: "Nobody booked anything in that time.",
    Table.WAITS: "Nobody waited in that time.",
    Table.NO_SHOWS: "Everybody came in that time.",
    Table.EVICTIONS: "No GPU was taken by force in that time.",
    Table.HEAT: "",
    Table.COMPARED: "",
}


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
@click.option(
    "--show",
    "table",
    type=click.Choice([one.value for one in Table]),
    help="What to print: GPU-hours (usage, the default), who waited, no-shows, evictions, how busy GPUs are at each "
    "hour of the week (heat; of the last 92 days of a longer time), or GPU-hours beside those of as long a time before "
    "(compared).",
)
@click.option("--group", type=click.Choice([one.value for one in Group]), help="Of usage and waits. Default: person.")
@click.option("--format", "form", type=click.Choice(["table", "csv", "json"]), default="table", show_default=True)
@click.option("--waits", is_flag=True, help="The same as --show waits.")
@json_option
@with_app
def report(start: str, end: str, table: str | None, group: str | None, form: str, waits: bool, as_json: bool) -> None:
    """GPU-hours booked, attached and busy, by person or by something else; who wasted most comes first.

    Wasted = not attached + idle. What Berth gave late or never, or booked in place of a GPU in maintenance and no
    machine took, is "not given", and nobody's waste. What nobody looked at is "no data", neither busy nor idle.
    No-shows and evictions: the last first."""
    until = moment(end, "--to") if end else clock.now()
    since = moment(start, "--from") if start else until - timedelta(days=30)
    if until <= since or until - since > LONGEST:
        raise click.UsageError(f"--to must be later than --from, by {LONGEST.days} days at most.")
    what, by = _what(table, waits, group), Group(group or Group.PERSON)
    span, form = Span.of(since, until, lab_zone(), clock.now()), "json" if as_json else form
    with transaction():
        rows = _rows(what, span, by)
        strays = _strays(span) if what == Table.USAGE and form == "table" else ""
    if form == "csv":
        writer = csv.writer(sys.stdout)
        writer.writerow(_heads(what, by))
        writer.writerows([_harmless(value) for value in row.values()] for row in rows)
    else:
        grid = _grid(rows) if what == Table.HEAT and form == "table" else rows
        show(grid, as_json=form == "json", empty=_empty(what, span))
    if strays:
        click.echo(strays)


def _what(table: str | None, waits: bool, group: str | None) -> Table:
    """Which table is asked for. Raises click.UsageError where the options say different things."""
    what = Table(table or (Table.WAITS if waits else Table.USAGE))
    if waits and what != Table.WAITS:
        raise click.UsageError("--waits and --show name different things.")
    if group is not None and not what.grouped:
        raise click.UsageError(f"--group is of usage and waits; {what} has no groups.")
    if what == Table.WAITS and group is not None and reports.waited_by(Group(group)) != Group(group):
        raise click.UsageError("Those who waited go by person, team, host or model.")
    return what


def _rows(what: Table, span: Span, by: Group) -> list[dict[str, Any]]:
    if what == Table.USAGE:
        return _usage(span, by)
    if what == Table.COMPARED:
        return compared(span, _before(span), Scope())
    return _waiting(span, by) if what == Table.WAITS else listed(what, span, Scope())


def _before(span: Span) -> Span:
    try:
        return periods.as_long_before(span, clock.now(), policy.kept_from())
    except (OverflowError, ValueError):
        raise click.UsageError("--from is too early to be compared with the time before.") from None


def _heads(what: Table, by: Group) -> list[str]:
    own = list(COLUMNS[what])
    if not what.grouped:
        return own
    return (["user", "name"] + ["bookings"] * (what == Table.USAGE) if by == Group.PERSON else [by.value]) + own


def _empty(what: Table, span: Span) -> str:
    """What is said where there are no rows."""
    if not span.days:
        return "That time is still to come."
    return f"{EMPTY[what]} What is still to come of it does not count." if span.until < span.end else EMPTY[what]


def _strays(span: Span) -> str:
    """What is no row's, since nobody had booked it."""
    found = reports.unbooked(span)
    return f"{found / 3600:.2f} GPU-hours were busy without a booking." if found > reports.LITTLE else ""


def _grid(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The week as one reads it: a line for each hour, a column for each day, in per cent."""
    found = {(row["weekday"], row["hour"]): row["busy_percent"] for row in rows}
    return [
        {"hour": f"{hour:02}:00"} | {day: found[number, hour] for number, day in enumerate(DAYS, 1)}
        for hour in range(24)
    ]


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
