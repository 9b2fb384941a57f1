"""The report's table as a file: exactly its rows, in their order."""

from __future__ import annotations

import json
from typing import Any

from flask import Response

from app.services.reports import report
from app.services.reports.table import AMOUNTS, amounts
from app.web import csv_files
from app.web.reports import asked, parquet, words
from app.web.reports.asked import Asked
from app.web.reports.blueprint import bp
from app.web.sessions import me

COLUMNS = {"name": str, **AMOUNTS}


@bp.get("/report.csv")
def csv_file() -> Response:
    """For spreadsheets."""
    wish = asked.read(me())
    return csv_files.answer(_name(wish, "csv"), list(COLUMNS), ([*row.values()] for row in table(wish)))


@bp.get("/report.json")
def json_file() -> Response:
    """For programs."""
    wish = asked.read(me())
    days = {"first_day": wish.shown.first.isoformat(), "last_day": wish.shown.last.isoformat()}
    body = json.dumps({**days, "group": wish.group.value, "rows": table(wish)}, ensure_ascii=False)
    headers = {"Content-Disposition": f"attachment; filename={_name(wish, 'json')}"}
    return Response(body, mimetype="application/json", headers=headers)


@bp.get("/report.parquet")
def parquet_file() -> Response:
    """For data frames."""
    wish = asked.read(me())
    headers = {"Content-Disposition": f"attachment; filename={_name(wish, 'parquet')}"}
    body = parquet.file(COLUMNS, table(wish))
    return Response(body, mimetype="application/vnd.apache.parquet", headers=headers)


def table(wish: Asked) -> list[dict[str, Any]]:
    """The page's rows."""
    return [
        {"name": row.day.isoformat() if row.day else words.name(row, wish.group), **amounts(row)}
        for row in wish.ordered(report.rows(wish.span, wish.group, wish.scope))
    ]


def _name(wish: Asked, ending: str) -> str:
    return f"berth-{wish.group}-{wish.shown.first}-{wish.shown.last}.{ending}"
