"""What can go wrong between here and LXD, as DriverErrors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import requests

from app.drivers.base import DriverError, GiveUp, HostUnreachable, TryAgain

_BUSY = re.compile(
    r"matching non-reusable operation|ETag doesn't match|is busy running|database is locked|deadline exceeded"
    r"|timed? ?out|operation was cancell?ed|in progress",
    re.IGNORECASE,
)
_SEE_LOG = "See LXD's log on the host: lxc monitor, lxc info NAME --show-log."


class RefusedError(Exception):
    """LXD's answer was an error, at once (`code` is HTTP's) or as the end of a background operation (`code` 400)."""

    def __init__(self, text: str, code: int = 400) -> None:
        super().__init__(text.strip()[:500] or f"error {code}")
        self.code = code

    @property
    def busy(self) -> bool:
        """Whether the same request may well succeed a moment later."""
        return self.code in {409, 412, 503} or bool(_BUSY.search(str(self)))


@contextmanager
def as_driver_errors(what: str, on_timeout: type[DriverError] = TryAgain) -> Iterator[None]:
    """Let nothing but DriverErrors out; `what` was tried."""
    try:
        yield
    except DriverError:
        raise
    except RefusedError as error:
        raise _of_refusal(what, error) from error
    except requests.Timeout as error:
        raise on_timeout(what, "LXD did not answer in time", "Is the host overloaded, or LXD hanging?") from error
    except (requests.RequestException, OSError) as error:
        raise HostUnreachable(what, str(error)[:500], _way_back(str(error))) from error
    except (KeyError, ValueError, TypeError) as error:
        raise GiveUp(what, f"unexpected answer: {error!r}"[:500], "Is that LXD, version 5 or later?") from error


def _of_refusal(what: str, error: RefusedError) -> DriverError:
    if error.busy:
        return TryAgain(what, str(error), "It is tried again by itself.")
    if error.code == 403:
        hint = "Let LXD trust this machine's client certificate: lxc remote add, as the user Berth runs as."
        return GiveUp(what, str(error), hint)
    return GiveUp(what, str(error), _SEE_LOG)


def _way_back(text: str) -> str:
    if "Permission denied" in text:
        return "The agent needs LXD's socket: run it as root or in the group lxd."
    if "certificate" in text.lower():
        return "Pin the server's certificate: lxc remote add, as the user Berth runs as."
    return "Is LXD running there, and is the endpoint right?"
