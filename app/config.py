"""Settings: read once from the environment, frozen, and every bad value named at once."""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parseaddr
from pathlib import Path
from zoneinfo import ZoneInfo, available_timezones

WEBSOCKET = re.compile(r"wss?://(\[[0-9a-f:]+\]|[A-Za-z0-9.-]+)(:\d{1,5})?(/[A-Za-z0-9._~/-]*)?")

# What people may be told by: services on the Internet, over TLS only, that take a message and nothing else.
SERVICES = """
    wecombot feishu lark dingtalk slack workflow workflows msteams discord tgram ntfys matrixs gotifys mmosts barks
    pover gchat wxteams jsons
"""


class BadSettings(ValueError):
    """The environment holds values that cannot be used; the text lists all of them."""


@dataclass(frozen=True)
class Settings:
    """What an installation may choose. Times in seconds."""

    data_dir: Path = field(metadata={"env": "BERTH_DATA", "doc": "where Berth keeps its state (default: var)"})
    port: int = field(metadata={"env": "PORT", "doc": "the portal's port on 127.0.0.1 (default: 8000)"})
    database_url: str = field(
        metadata={"env": "DATABASE_URL", "doc": "a PostgreSQL to use in place of the embedded one"}
    )
    redis_url: str = field(
        metadata={"env": "REDIS_URL", "doc": "a Valkey or Redis to use in place of the embedded one"}
    )
    redis_agent_url: str = field(
        metadata={"env": "REDIS_AGENT_URL", "doc": "the agents' own login to it (default: REDIS_URL)"}
    )
    lxd: str = field(metadata={"env": "BERTH_LXD", "doc": "LXD socket or https address of the first host"})
    slot: int = field(
        metadata={"env": "BERTH_SLOT", "doc": "the grid that bookings snap to, in seconds (default: 900)"}
    )
    tick: int = field(
        metadata={"env": "BERTH_TICK", "doc": "seconds between two passes that nobody asked for (default: 5)"}
    )
    timezone: str = field(metadata={"env": "BERTH_TZ", "doc": "the lab's time zone (default: the machine's, else UTC)"})
    https: bool = field(
        metadata={"env": "BERTH_HTTPS", "doc": "1 behind a TLS proxy: secure cookies and HSTS (default: 0)"}
    )
    terminal_listen: tuple[str, int] = field(
        metadata={
            "env": "BERTH_TERMINAL_LISTEN",
            "doc": "where an agent serves terminals, ADDRESS:PORT (default: 127.0.0.1 and a free port)",
        }
    )
    terminal_url: str = field(
        metadata={
            "env": "BERTH_TERMINAL_URL",
            "doc": "how browsers reach that, ws:// or wss:// (default: as it listens)",
        }
    )
    url: str = field(
        metadata={"env": "BERTH_URL", "doc": "how people reach the portal, for links (default: http://127.0.0.1:PORT)"}
    )
    smtp: str = field(
        repr=False,
        metadata={"env": "BERTH_SMTP", "doc": "the mail server, smtp:// or smtps:// (default: nobody gets e-mail)"},
    )
    mail_from: str = field(
        metadata={"env": "BERTH_MAIL_FROM", "doc": "whom e-mail is from (default: Berth <berth@localhost>)"}
    )
    notify: tuple[str, ...] = field(
        metadata={
            "env": "BERTH_NOTIFY",
            "doc": "apprise's names of services that people may be told by (default: those of the big public ones)",
        }
    )
    notify_private: bool = field(
        metadata={"env": "BERTH_NOTIFY_PRIVATE", "doc": "1: also at addresses of the lab's own network (default: 0)"}
    )
    rate_limits: bool = field(
        metadata={"env": "BERTH_RATE_LIMITS", "doc": "0 switches rate limits off, for benchmarks (default: 1)"}
    )
    secret_key: str = field(
        repr=False, metadata={"env": "SECRET_KEY", "doc": "signs cookies (default: made once, kept in BERTH_DATA)"}
    )

    @property
    def run_dir(self) -> Path:
        """Sockets, locks and the address book of running services."""
        return self.data_dir / "run"

    @property
    def zone(self) -> ZoneInfo:
        """The lab's zone."""
        return ZoneInfo(self.timezone)

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the environment, and what a running `berth up` left in BERTH_DATA. Raises BadSettings."""
        env = _Environment(os.environ if environ is None else environ)
        data_dir = Path(env.text("BERTH_DATA", "var")).absolute()
        running = _running_services(data_dir)
        redis_url = env.address("REDIS_URL", running.get("redis_url", ""), ("redis://", "rediss://", "unix://"))
        agents = redis_url if env.text("REDIS_URL") else running.get("redis_agent_url", redis_url)
        database_url = env.address(
            "DATABASE_URL", running.get("database_url", ""), ("postgresql://", "postgresql+psycopg://", "postgres://")
        )
        port = env.number("PORT", 8000, 1, 65535)
        settings = cls(
            data_dir=data_dir,
            port=port,
            database_url=_with_driver(database_url),
            redis_url=redis_url,
            redis_agent_url=env.text("REDIS_AGENT_URL", agents),
            lxd=env.text("BERTH_LXD"),
            slot=env.number("BERTH_SLOT", 900, 1, 86400),
            tick=env.number("BERTH_TICK", 5, 1, 300),
            timezone=env.zone("BERTH_TZ", _machine_zone()),
            https=env.switch("BERTH_HTTPS", "0"),
            terminal_listen=env.listener("BERTH_TERMINAL_LISTEN", "127.0.0.1:0"),
            terminal_url=env.websocket("BERTH_TERMINAL_URL"),
            url=env.address("BERTH_URL", f"http://127.0.0.1:{port}", ("http://", "https://")).rstrip("/"),
            smtp=env.address("BERTH_SMTP", "", ("smtp://", "smtps://")),
            mail_from=env.sender("BERTH_MAIL_FROM", "Berth <berth@localhost>"),
            notify=tuple(env.text("BERTH_NOTIFY", SERVICES).lower().replace(",", " ").split()),
            notify_private=env.switch("BERTH_NOTIFY_PRIVATE", "0"),
            rate_limits=env.switch("BERTH_RATE_LIMITS", "1"),
            secret_key=env.text("SECRET_KEY"),
        )
        if env.problems:
            raise BadSettings("Berth cannot start with these settings:\n  " + "\n  ".join(env.problems))
        return settings

    def ensure_secret_key(self) -> str:
        """The key that signs cookies: as given, else one made on first use and kept, readable by its owner only."""
        if self.secret_key:
            return self.secret_key
        path = self.data_dir / "secret_key"
        self.data_dir.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return path.read_text().strip()
        with os.fdopen(handle, "w") as file:
            key = secrets.token_urlsafe(48)
            file.write(key)
        return key


class _Environment:
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
        if text in available_timezones():
            return text
        self.problems.append(f"{name}={text!r}: no such time zone; use a name such as Asia/Shanghai")
        return "UTC"


def _with_driver(url: str) -> str:
    """SQLAlchemy's spelling of a PostgreSQL address: ours is psycopg 3."""
    for prefix in ("postgresql://", "postgres://"):
        if url.startswith(prefix):
            return "postgresql+psycopg://" + url.removeprefix(prefix)
    return url


def _running_services(data_dir: Path) -> dict[str, str]:
    """Addresses of the embedded servers, as a running `berth up` wrote them."""
    try:
        found = json.loads((data_dir / "run" / "services.json").read_text())
    except (OSError, ValueError):
        return {}
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}


def _machine_zone() -> str:
    """The machine's zone by name, where it has one; else UTC."""
    target = os.path.realpath("/etc/localtime")
    name = target.partition("/zoneinfo/")[2]
    return name if name in available_timezones() else "UTC"
