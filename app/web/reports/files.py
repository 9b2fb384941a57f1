"""The report's tables as files: exactly their rows, in their order; all of what the page has the last of."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from datetime import date
from typing import Any

from flask import Response, request

from app.services import people, policy
from app.services.reports import heat, periods, report
from app.services.reports.report import Group, Row, WaitRow
from app.services.reports.table import COLUMNS, Table, amounts, compared, listed, waited
from app.web import csv_files
from app.web.reports import asked, parquet, words
from app.web.reports.asked import Asked
from app.web.reports.blueprint import bp
from app.web.sessions import me


@bp.get("/report.csv")
def csv_file() -> Response:
    """For spreadsheets."""
    wish = asked.read(me())
    return csv_files.answer(_name(wish, "csv"), list(_columns(wish)), ([*row.values()] for row in table(wish)))


@bp.get("/report.json")
def json_file() -> Response:
    """For programs."""
    wish = asked.read(me())
    facts = {"table": _which(), "first_day": _first(wish).isoformat(), "last_day": wish.shown.last.isoformat()}
    facts |= {"group": _group(wish)} if _which().grouped else {}
    body = json.dumps({**facts, "rows": table(wish)}, ensure_ascii=False)
    headers = {"Content-Disposition": f"attachment; filename={_name(wish, 'json')}"}
    return Response(body, mimetype="application/json", headers=headers)


@bp.get("/report.parquet")
def parquet_file() -> Response:
    """For data frames."""
    wish = asked.read(me())
    headers = {"Content-Disposition": f"attachment; filename={_name(wish, 'parquet')}"}
    body = parquet.file(_columns(wish), table(wish))
    return Response(body, mimetype="application/vnd.apache.parquet", headers=headers)


def table(wish: Asked) -> list[dict[str, Any]]:
    """The page's rows, of the table that is asked for. Raises InvalidInput where they are too many for a file."""
    if _which() == Table.COMPARED:
        _days, before = periods.before(wish.span, wish.choice, wish.shown, wish.now, policy.kept_from())
        return compared(wish.span, before, wish.scope)
    if not _which().grouped:
        return listed(_which(), wish.span, wish.scope)
    if _which() == Table.WAITS:
        found = report.waits(wish.span, wish.group, wish.scope)
        users = _users(found.by, found.rows)
        return [{**users(row), "name": words.wished(row, found.by), **waited(row)} for row in found.rows]
    rows = wish.ordered(report.rows(wish.span, wish.group, wish.scope))
    users = _users(wish.group, rows)
    return [
        {**users(row), "name": row.day.isoformat() if row.day else words.name(row, wish.group), **amounts(row)}
        for row in rows
    ]


def _users(by: Group, rows: Iterable[Row | WaitRow]) -> Callable[[Row | WaitRow], dict[str, str]]:
    """What a person's row has besides: the username, which nobody else has."""
    if by != Group.PERSON:
        return lambda _row: {}
    found = people.usernames([row.key for row in rows])
    return lambda row: {"user": found[row.key]}


def _which() -> Table:
    asked_for = request.args.get("table", "")
    return next((one for one in Table if one == asked_for), Table.USAGE)


def _columns(wish: Asked) -> dict[str, type]:
    own = COLUMNS[_which()]
    if not _which().grouped:
        return own
    return ({"user": str} if _group(wish) == Group.PERSON else {}) | {"name": str, **own}


def _group(wish: Asked) -> Group:
    return report.waited_by(wish.group) if _which() == Table.WAITS else wish.group


def _first(wish: Asked) -> date:
    """The first day that is in it: of the week's hours, only a last part of many days is."""
    since = heat.since(wish.span).astimezone(wish.span.zone).date() if _which() == Table.HEAT else wish.shown.first
    return max(wish.shown.first, since)


def _name(wish: Asked, ending: str) -> str:
    what = "berth" if _which() == Table.USAGE else f"berth-{_which()}"
    by = f"-{_group(wish)}" if _which().grouped else ""
    return f"{what}{by}-{_first(wish)}-{wish.shown.last}.{ending}"
