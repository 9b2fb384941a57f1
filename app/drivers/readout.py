"""Reading out an instance's logs, and making them fit to be shown: whoever is root in it decides what is in them."""

from __future__ import annotations

import re
from typing import Protocol

LONGEST = 32_000  # bytes that are read, the last ones
READING = 8.0  # seconds
LINE = 500  # characters of one line
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])")


class ReadoutDriver(Protocol):
    """A part of LxdDriver. Both raise GiveUp for an instance that is not there."""

    def read_log(self, instance: str) -> str:
        """The end of LXD's own log of the instance: why it did not start; "" where there is none."""

    def read_console(self, instance: str) -> str:
        """The end of what the instance wrote to its console: how it started; "" where there is nothing."""


def plain(data: bytes, longest: int = LONGEST) -> str:
    """The end of it as text that steers no terminal and no page: without escapes, control and direction characters,
    lines cut."""
    text = _ESCAPES.sub("", data[-longest:].decode("utf-8", errors="replace"))
    lines = text.replace("\r\n", "\n").replace("\r", "\n").replace("\t", " ").split("\n")
    return "\n".join("".join(filter(str.isprintable, line))[:LINE].rstrip() for line in lines).strip("\n")
