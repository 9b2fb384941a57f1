"""Services that messages go through, by way of apprise: only those that an admin lets in, and by TLS.

apprise also speaks to this machine itself (D-Bus, syslog), reads files that an address names, and follows redirects; so
all its other plugins are switched off here, and options are taken by name.
"""

from __future__ import annotations

import logging
import re
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from app.drivers.base import DriverError

LONGEST = 1000  # characters of an address
TIMEOUT = 5.0  # seconds, to connect and for each answer
# Parts of webhooks' addresses as their services hand them out, and what is harmless.
OPTIONS = frozenset(
    """
    key access_token sign secret token api-version sp sv sig to from priority tags mode format
    """.split()  # noqa: SIM905 - a list of words reads better so
)
_CODE = re.compile(r"error=(\d{3})")


def scheme_of(address: str, allowed: tuple[str, ...]) -> str:
    """Which service an address leads to. Raises DriverError for what cannot be used, in a few English words."""
    return str(_plugin(address, allowed).url().partition("://")[0])


def send(address: str, title: str, text: str, allowed: tuple[str, ...]) -> None:
    """Hand a message to the service. Raises DriverError; `code` is then `http_NNN` where the service answered so.

    For a process that does nothing else: see app.drivers.outward.
    """
    plugin = _plugin(address, allowed)
    plugin.redirects, plugin.verify_certificate = False, True
    plugin.socket_connect_timeout = plugin.socket_read_timeout = TIMEOUT
    heard = _Ear()
    log = logging.getLogger("apprise")
    log.handlers, log.propagate = [heard], False  # what it says may hold the address
    log.setLevel(logging.WARNING)
    if not plugin.notify(body=text, title=title):
        raise DriverError(f"http_{heard.code}" if heard.code else "not_taken")


class _Ear(logging.Handler):
    """Hears what a service answered."""

    code = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the number alone."""
        if found := _CODE.search(record.getMessage()):
            self.code = found[1]


def _plugin(address: str, allowed: tuple[str, ...]) -> Any:
    parts = urlsplit(address) if len(address) <= LONGEST and address.isprintable() else None
    if parts is None or not parts.scheme or not parts.netloc:
        raise DriverError("no_address")
    apprise = _apprise(allowed)
    if _options(address) - OPTIONS:
        raise DriverError("option")
    if parts.scheme.lower() not in {*allowed, "https"}:
        raise DriverError("scheme")
    plugin = apprise.Apprise.instantiate(address, suppress_exceptions=True)
    if plugin is None:
        raise DriverError("no_address")
    if str(plugin.url()).partition("://")[0] not in allowed:  # a native https address of a service that is not let in
        raise DriverError("scheme")
    return plugin


def _options(address: str) -> set[str]:
    """The options that apprise finds in an address, which are more than a browser would: it also divides them at `;`,
    and knows no fragment."""
    from apprise.utils.parse import parse_url  # noqa: PLC0415

    found = parse_url(address, verify_host=False)  # type: ignore[no-untyped-call]
    if found is None:
        raise DriverError("no_address")
    return set(found["qsd"]) - {""}


@cache
def _apprise(allowed: tuple[str, ...]) -> Any:
    """The library with everything else switched off; loaded where it is needed, since it is large."""
    import apprise  # noqa: PLC0415
    from apprise.manager_plugins import NotificationManager  # noqa: PLC0415

    plugins: Any = NotificationManager
    plugins().enable_only(*allowed)
    return apprise
