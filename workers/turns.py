"""One turn of a thread of the agent: whatever fails in it, the thread lives on and takes the next."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy.exc import SQLAlchemyError

from app.drivers.base import DriverError
from app.errors import NotFound


@contextmanager
def turn(log: logging.Logger, what: str, on_trouble: Callable[[str], None] | None = None) -> Iterator[None]:
    """Nothing is raised. `what` is done, as the log says it: "the check of lab01".

    While the database is away, or does not have the host, it is done in vain, and that is no news. `on_trouble` is told
    what LXD said where it failed; without it that is logged as anything else that nobody expected."""
    try:
        yield
    except (SQLAlchemyError, NotFound) as error:
        log.debug("%s, in vain: %s", what, error)
    except Exception as error:
        if on_trouble is not None and isinstance(error, DriverError):
            on_trouble(str(error))
        else:
            log.exception("%s failed", what)
