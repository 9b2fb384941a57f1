"""What things may be called."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from app.errors import InvalidInput
from app.extensions import db
from app.language import gettext as _
from app.models import Operation, OperationKind
from app.services import operations

MACHINE_NAME = re.compile(r"[a-z]([a-z0-9-]{0,28}[a-z0-9])?")  # of templates too
RESERVED = frozenset({"new"})  # the address of the page that makes one
RESERVED_PREFIX = "berth-"  # what Berth itself works in


def reserved(name: str) -> bool:
    """Whether no machine may be called so."""
    return name in RESERVED or name.startswith(RESERVED_PREFIX)


@contextmanager
def claiming(name: str, hint: str = "", *, field: str = "name") -> Iterator[None]:
    """Give a machine this name within; the database decides between two who want it. Raises InvalidInput where it is
    taken, reserved, or not given up yet."""
    taken = InvalidInput(_("The name %(name)s is taken.", name=name), hint, field=field)
    if reserved(name):
        raise taken
    try:
        with db.session.begin_nested():
            yield
            db.session.flush()
            if _leaves(name):  # asked only now: who waited for the name sees why it is free
                raise taken
    except IntegrityError as error:
        raise taken from error


def _leaves(name: str) -> bool:
    """Whether a machine is being renamed that its host knows by this name still: a new one would get that one."""
    renaming = (Operation.kind == OperationKind.RENAME, Operation.state.in_(operations.OPEN))
    query = select(Operation.id).where(*renaming, Operation.details["old"].as_string() == name).limit(1)
    return db.session.scalar(query) is not None
