"""Tables as files for spreadsheets."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from flask import Response

MARK = "\ufeff"  # byte order mark: without one, Excel takes UTF-8 for Windows' own encoding and garbles names


def answer(name: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Response:
    """The table as a download with that file name."""
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(header)
    writer.writerows([harmless(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)
    return download(name, file.getvalue())


def download(name: str, text: str) -> Response:
    """Lines of CSV as a file of that name."""
    headers = {"Content-Disposition": f"attachment; filename={name}"}
    return Response(MARK + text, mimetype="text/csv", headers=headers)


def harmless(text: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
