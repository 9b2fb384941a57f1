"""The report's tables as files: exactly their rows, in their order."""

from __future__ import annotations

import json
from typing import Any

from flask import Response, request

from app.services.reports import report
from app.services.reports.report import Group
from app.services.reports.table import AMOUNTS, WAITS, amounts, waited
from app.web import csv_files
from app.web.reports import asked, parquet, words
from app.web.reports.asked import Asked
from app.web.reports.blueprint import bp
from app.web.sessions import me

USAGE, WAITING = "report", "waits"
COLUMNS: dict[str, dict[str, type]] = {USAGE: {"name": str, **AMOUNTS}, WAITING: {"name": str, **WAITS}}


@bp.get("/report.csv")
def csv_file() -> Response:
    """For spreadsheets."""
    wish = asked.read(me())
    header = list(COLUMNS[_which()])
    return csv_files.answer(_name(wish, "csv"), header, ([*row.values()] for row in table(wish)))


@bp.get("/report.json")
def json_file() -> Response:
    """For programs."""
    wish = asked.read(me())
    days = {"first_day": wish.shown.first.isoformat(), "last_day": wish.shown.last.isoformat()}
    body = json.dumps({**days, "group": _group(wish), "rows": table(wish)}, ensure_ascii=False)
    headers = {"Content-Disposition": f"attachment; filename={_name(wish, 'json')}"}
    return Response(body, mimetype="application/json", headers=headers)


@bp.get("/report.parquet")
def parquet_file() -> Response:
    """For data frames."""
    wish = asked.read(me())
    headers = {"Content-Disposition": f"attachment; filename={_name(wish, 'parquet')}"}
    body = parquet.file(COLUMNS[_which()], table(wish))
    return Response(body, mimetype="application/vnd.apache.parquet", headers=headers)


def table(wish: Asked) -> list[dict[str, Any]]:
    """The page's rows, of the table that is asked for."""
    if _which() == WAITING:
        found = report.waits(wish.span, wish.group, wish.scope)
        return [{"name": words.wished(row, found.by), **waited(row)} for row in found.rows]
    return [
        {"name": row.day.isoformat() if row.day else words.name(row, wish.group), **amounts(row)}
        for row in wish.ordered(report.rows(wish.span, wish.group, wish.scope))
    ]


def _which() -> str:
    return WAITING if request.args.get("table") == WAITING else USAGE


def _group(wish: Asked) -> Group:
    return report.waited_by(wish.group) if _which() == WAITING else wish.group


def _name(wish: Asked, ending: str) -> str:
    what = "berth-waits" if _which() == WAITING else "berth"
    return f"{what}-{_group(wish)}-{wish.shown.first}-{wish.shown.last}.{ending}"
