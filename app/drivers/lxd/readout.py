"""An instance's logs, of LXD. The answers are files of unknown length: their end is asked for, and no more is read."""

from __future__ import annotations

from app.drivers.base import GiveUp
from app.drivers.lxd.errors import RefusedError, as_driver_errors
from app.drivers.lxd.updates import Updates
from app.drivers.readout import LONGEST, READING, plain

_LOG = "lxc.log"
_NOTHING = "open : no such file"  # so LXD 5.0 answers, with 500, where a console's buffer is empty


class Readout(Updates):
    """ReadoutDriver's part of the driver."""

    def read_log(self, instance: str) -> str:
        """The end of LXD's own log of it."""
        return self._read(f"Read LXD's log of {instance}", instance, "logs", _LOG)

    def read_console(self, instance: str) -> str:
        """The end of what it wrote to its console."""
        return self._read(f"Read the console of {instance}", instance, "console")

    def _read(self, what: str, instance: str, *path: str) -> str:
        with as_driver_errors(what):
            if self._wire.find(instance)[0] is None:
                raise GiveUp(what, "the host has no such instance", "Look for it on another host.")
            try:
                return plain(self._wire.tail("instances", instance, *path, most=LONGEST, limit=READING))
            except RefusedError as error:
                if error.code == 404 or _NOTHING in str(error):  # it never ran, or has written nothing yet
                    return ""
                raise
