"""Values of environment variables: each kind is read by one rule, and all that is wrong is told at once."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from email.utils import parseaddr
from functools import cache
from zoneinfo import available_timezones

WEB = re.compile(r"https://[A-Za-z0-9.\[\]:-]{1,200}(/[A-Za-z0-9._~/+-]{0,200})?")
WEBSOCKET = re.compile(r"wss?://(\[[0-9a-f:]+\]|[A-Za-z0-9.-]+)(:\d{1,5})?(/[A-Za-z0-9._~/-]*)?")


class Environment:
    """Reads values of one kind each, and collects what is wrong with them."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values
        self.problems: list[str] = []

    def text(self, name: str, default: str = "") -> str:
        """As it is; set but empty counts as not set."""
        return self._values.get(name) or default

    def number(self, name: str, default: int, low: int, high: int) -> int:
        """A whole number within bounds."""
        text = self.text(name, str(default))
        if text.isascii() and text.isdigit() and low <= int(text) <= high:
            return int(text)
        self.problems.append(f"{name}={text!r}: must be a whole number from {low} to {high}")
        return default

    def switch(self, name: str, default: str) -> bool:
        """On or off."""
        text = self.text(name, default).lower()
        if text not in {"0", "1", "no", "yes", "false", "true"}:
            self.problems.append(f"{name}={text!r}: must be 0 or 1")
        return text in {"1", "yes", "true"}

    def secret(self, name: str, least: int) -> str:
        """A word that is hard to guess and fits into a header, or none. It is not said back."""
        text = self.text(name)
        if text and (len(text) < least or not text.isascii() or not text.isprintable() or " " in text):
            self.problems.append(f"{name}: must have {least} characters or more, of ASCII and without blanks")
        return text

    def named(self, name: str, usual: Mapping[str, str]) -> Mapping[str, str]:
        """Web addresses by name, the usual ones and those given; these may take the place of the usual."""
        given = dict(word.partition("=")[::2] for word in self.text(name).split())
        for key, url in given.items():
            if not (re.fullmatch(r"[a-z][a-z0-9-]{0,29}", key) and WEB.fullmatch(url)):
                self.problems.append(f"{name}: {key}={url}: must be a name in small letters, =, and an https address")
        return {**usual, **{key: url.rstrip("/") for key, url in given.items()}}

    def address(self, name: str, default: str, schemes: tuple[str, ...]) -> str:
        """An address of one of these schemes, or none."""
        text = self.text(name, default)
        if text and not text.startswith(schemes):
            self.problems.append(f"{name}: must start with {' or '.join(schemes)}")
        return text

    def sender(self, name: str, default: str) -> str:
        """One address of e-mail, with a name or without. It becomes a header."""
        text = self.text(name, default)
        if "@" in parseaddr(text)[1] and text.isprintable():
            return text
        self.problems.append(f"{name}: must be an address such as Berth <berth@example.org>")
        return default

    def listener(self, name: str, default: str) -> tuple[str, int]:
        """An address and a port of this machine; port 0: a free one."""
        host, _, port = self.text(name, default).rpartition(":")
        if host and port.isascii() and port.isdigit() and int(port) <= 65535:
            return host.strip("[]"), int(port)
        self.problems.append(f"{name}: must be an address and a port, such as 10.0.0.5:8790")
        return "127.0.0.1", 0

    def websocket(self, name: str) -> str:
        """The address of a WebSocket, or none. It becomes part of a header."""
        text = self.text(name)
        if text and not WEBSOCKET.fullmatch(text):
            self.problems.append(f"{name}: must be an address such as wss://berth.example.org/terminal/lab01")
            return ""
        return text

    def zone(self, name: str, default: str) -> str:
        """The name of a time zone."""
        text = self.text(name, default)
        if text in _zones():
            return text
        self.problems.append(f"{name}={text!r}: no such time zone; use a name such as Asia/Shanghai")
        return "UTC"


def machine_zone() -> str:
    """The machine's zone by name, where it has one; else UTC."""
    target = os.path.realpath("/etc/localtime")
    name = target.partition("/zoneinfo/")[2]
    return name if name in _zones() else "UTC"


@cache
def _zones() -> set[str]:
    return available_timezones()  # reads a directory of hundreds of files
