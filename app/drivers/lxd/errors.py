"""What can go wrong between here and LXD, as DriverErrors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import requests

from app.drivers.base import DriverError, GiveUp, HostUnreachable, TryAgain

_BUSY = re.compile(
    r"matching non-reusable operation|ETag doesn't match|is busy running|database is locked|deadline exceeded"
    r"|timed? ?out|operation was cancell?ed|in progress|file exists",  # the last: a node of an update that lost a race
    re.IGNORECASE,
)
_TAKEN = re.compile(r"matching non-reusable operation|is busy running", re.IGNORECASE)
AWAY = "LXD went away in the middle of it"
_FULL = re.compile(r"no space left|quota exceeded|not enough space|ENOSPC", re.IGNORECASE)
# btrfs can fail at one for want of room and have made it, the next within that, and then no more.
_UNLISTED = re.compile(r"volume that has snapshots|cannot snapshot .*: File exists")
# pylxd looks for the pinned certificate under the address: the remote has to be called by it.
_REMOTE_ADD = "lxc remote add ADDRESS https://ADDRESS:8443, as the user Berth runs as."


class RefusedError(Exception):
    """LXD's answer was an error, at once (`code` is HTTP's) or as the end of a background operation (`code` 400)."""

    def __init__(self, text: str, code: int = 400) -> None:
        super().__init__(text.strip()[:500] or f"error {code}")
        self.code = code

    @property
    def busy(self) -> bool:
        """Whether the same request may well succeed a moment later."""
        return self.code in {409, 412, 503} or bool(_BUSY.search(str(self)))

    @property
    def taken(self) -> bool:
        """Whether LXD is at something else with that instance."""
        return bool(_TAKEN.search(str(self)))

    @property
    def overtaken(self) -> bool:
        """Whether somebody may have done it since it was looked at."""
        return self.code == 404 or "already exists" in str(self)

    @property
    def full(self) -> bool:
        """Whether there was no room for it."""
        return bool(_FULL.search(str(self)))


class UnfinishedError(RefusedError):
    """LXD has not done with a background operation in the time that it was given, and goes on with it."""

    def __init__(self, operation: str, limit: float) -> None:
        super().__init__(f"timed out: LXD is still at it after {limit:.0f} s")
        self.operation = operation


@contextmanager
def as_driver_errors(what: str, kind: type[DriverError] | None = None) -> Iterator[None]:
    """Let nothing but DriverErrors out; `what` was tried. With a `kind`, whatever LXD does wrong is that."""
    try:
        yield
    except DriverError:
        raise
    except (RefusedError, OSError, KeyError, ValueError, TypeError) as error:  # requests' errors are OSErrors
        found, detail, todo = _explain(error)
        raise (kind or found)(what, detail[:500], todo) from error


def _explain(error: Exception) -> tuple[type[DriverError], str, str]:
    if isinstance(error, requests.Timeout):
        return TryAgain, "LXD did not answer in time", "Is the host overloaded, or LXD hanging?"
    if isinstance(error, requests.JSONDecodeError) or not isinstance(error, (RefusedError, OSError)):
        return GiveUp, f"unexpected answer: {error!r}", "Is that LXD, version 5 or later?"
    if not isinstance(error, RefusedError):
        aborted = isinstance(error, requests.ConnectionError) and "Connection aborted" in str(error)
        detail = AWAY if aborted else str(error)
        return HostUnreachable, detail, "Try again when it is back." if aborted else _way_back(detail)
    return _refused(error)


def _refused(error: RefusedError) -> tuple[type[DriverError], str, str]:
    if error.full:  # before all else: LXD may have said so while it was busy
        if "quota exceeded" in str(error).lower():
            todo = "Remove files from it while it runs, or give it a larger disk: stopped, it needs that to start."
            return GiveUp, "the machine's disk is full", todo
        return GiveUp, "the host's storage pool is full", "An admin has to free space there, or make it larger."
    if _UNLISTED.search(str(error)):  # before busy, which a file that exists may mean elsewhere
        todo = "On the host, delete what its pool has in containers-snapshots/ under that name. Then try again."
        return GiveUp, "LXD's storage has a snapshot of it that LXD does not list", todo
    if error.busy:
        return TryAgain, str(error), TryAgain.AGAIN
    if "due to subsequent" in str(error):  # as ZFS does without zfs.remove_snapshots
        return GiveUp, "this host's storage goes back to the newest snapshot only", "Delete the newer ones first."
    trust = f"Let LXD trust this machine's client certificate: {_REMOTE_ADD}"
    log = "See LXD's log on the host: lxc monitor, lxc info NAME --show-log."
    return GiveUp, str(error), trust if error.code == 403 else log


def _way_back(text: str) -> str:
    if "Permission denied" in text:
        return "The agent needs LXD's socket: run it as root or in the group lxd."
    if "certificate" in text.lower() or "Fingerprint" in text:
        return f"Pin the server's certificate: {_REMOTE_ADD}"
    return "Is LXD running there, and is the endpoint right?"
