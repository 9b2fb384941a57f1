"""The thing that an audit event was done to, by its id."""

from __future__ import annotations

from sqlalchemy import BigInteger, ColumnElement, and_, case, cast, func

from app.models import AuditEvent

DIGITS = 18  # what a bigint takes, whatever they are


def number(kind: str) -> ColumnElement[int | None]:
    """7 of the target `booking:7`; NULL where it is something else. A regular expression takes ten times as long."""
    rest = func.substr(AuditEvent.target, len(kind) + 2)
    is_number = and_(
        func.left(AuditEvent.target, len(kind) + 1) == f"{kind}:",
        func.length(rest).between(1, DIGITS),
        func.ltrim(rest, "0123456789") == "",
    )
    return case((is_number, cast(rest, BigInteger)))
