"""Settings: read once from the environment, frozen, and every bad value named at once."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from zoneinfo import ZoneInfo

from app.environment import Environment, machine_zone

# Where images are fetched from by `server:alias`, as LXD's own client names them. Nothing else is fetched.
IMAGE_SERVERS = {
    "ubuntu": "https://cloud-images.ubuntu.com/releases",
    "images": "https://images.lxd.canonical.com",
}
SOURCES = {  # where recipes get what no package of the distribution has
    "miniconda": "https://repo.anaconda.com/miniconda",
    "cuda": "https://developer.download.nvidia.com/compute/cuda/repos",
    "jupyter": "https://pypi.org/simple",
}
# What people may be told by: services on the Internet, over TLS only, that take a message and nothing else.
SERVICES = """
    wecombot feishu lark dingtalk slack workflow workflows msteams discord tgram ntfys matrixs gotifys mmosts barks
    pover gchat wxteams jsons
"""


PORTAL_USER = "berth-web"  # whom the portal runs as when Berth is started as root


class BadSettings(ValueError):
    """The environment holds values that cannot be used; the text lists all of them."""


@dataclass(frozen=True)
class Settings:
    """What an installation may choose. Times in seconds."""

    data_dir: Path = field(
        metadata={"env": "BERTH_DATA", "doc": "where Berth keeps its state (default: var, below where it is started)"}
    )
    port: int = field(metadata={"env": "PORT", "doc": "the portal's port on 127.0.0.1 (default: 8000)"})
    database_url: str = field(
        metadata={"env": "DATABASE_URL", "doc": "a PostgreSQL, 14 or newer, to use in place of the embedded one"}
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
    timezone: str = field(
        metadata={
            "env": "BERTH_TZ",
            "doc": "the lab's time zone: agents and commands go by the portal's; days that were counted stay"
            " (default: the machine's, else UTC)",
        }
    )
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
    backup_gib: int = field(
        metadata={
            "env": "BERTH_BACKUP_GIB",
            "doc": "the largest disk that a backup to download is made of (default: 100)",
        }
    )
    rdp_cert: str = field(
        metadata={"env": "BERTH_RDP_CERT", "doc": "PEM file of a certificate that .rdp files are signed with"}
    )
    rdp_key: str = field(metadata={"env": "BERTH_RDP_KEY", "doc": "PEM file of its key, without a password"})
    image_servers: Mapping[str, str] = field(
        metadata={
            "env": "BERTH_IMAGE_SERVERS",
            "doc": "more servers of images, NAME=https://…, with blanks between them (ubuntu and images are known)",
        }
    )
    sources: Mapping[str, str] = field(
        metadata={
            "env": "BERTH_SOURCES",
            "doc": "mirrors for what recipes add: miniconda=https://… cuda=https://… jupyter=https://…",
        }
    )
    import_anyway: bool = field(
        metadata={
            "env": "BERTH_IMPORT_ANYWAY",
            "doc": "1: take images from files into an LXD whose number is too old, since it was mended (default: 0)",
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
    metrics_token: str = field(
        repr=False,
        metadata={
            "env": "BERTH_METRICS_TOKEN",
            "doc": "who sends it as bearer token reads names in /metrics, 16 characters or more (default: nobody)",
        },
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
    def images_dir(self) -> Path:
        """Where an agent looks for files of images on its host."""
        return self.data_dir / "images"

    @property
    def zone(self) -> ZoneInfo:
        """The lab's zone."""
        return ZoneInfo(self.timezone)

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the environment, and what a running `berth up` left in BERTH_DATA. Raises BadSettings."""
        env = Environment(os.environ if environ is None else environ)
        data_dir = Path(env.text("BERTH_DATA", "var")).absolute()
        port = env.number("PORT", 8000, 1, 65535)
        settings = cls(
            data_dir=data_dir,
            port=port,
            **_servers(env, _running_services(data_dir)),
            lxd=env.text("BERTH_LXD"),
            slot=env.number("BERTH_SLOT", 900, 1, 86400),
            tick=env.number("BERTH_TICK", 5, 1, 300),
            timezone=env.zone("BERTH_TZ", machine_zone()),
            https=env.switch("BERTH_HTTPS", "0"),
            terminal_listen=env.listener("BERTH_TERMINAL_LISTEN", "127.0.0.1:0"),
            terminal_url=env.websocket("BERTH_TERMINAL_URL"),
            backup_gib=env.number("BERTH_BACKUP_GIB", 100, 1, 100_000),
            rdp_cert=env.text("BERTH_RDP_CERT"),
            rdp_key=env.text("BERTH_RDP_KEY"),
            image_servers=env.named("BERTH_IMAGE_SERVERS", IMAGE_SERVERS),
            sources=env.named("BERTH_SOURCES", SOURCES),
            import_anyway=env.switch("BERTH_IMPORT_ANYWAY", "0"),
            url=env.address("BERTH_URL", f"http://127.0.0.1:{port}", ("http://", "https://")).rstrip("/"),
            smtp=env.address("BERTH_SMTP", "", ("smtp://", "smtps://")),
            mail_from=env.sender("BERTH_MAIL_FROM", "Berth <berth@localhost>"),
            notify=tuple(env.text("BERTH_NOTIFY", SERVICES).lower().replace(",", " ").split()),
            notify_private=env.switch("BERTH_NOTIFY_PRIVATE", "0"),
            metrics_token=env.secret("BERTH_METRICS_TOKEN", 16),
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


def _servers(env: Environment, running: Mapping[str, str]) -> dict[str, str]:
    """Where database and Valkey are: as given, else the embedded ones if they run."""
    valkey = ("redis://", "rediss://", "unix://")
    redis_url = env.address("REDIS_URL", running.get("redis_url", ""), valkey)
    agents = redis_url if env.text("REDIS_URL") else running.get("redis_agent_url", redis_url)
    schemes = ("postgresql://", "postgresql+psycopg://", "postgres://")
    return {
        "database_url": _with_driver(env.address("DATABASE_URL", running.get("database_url", ""), schemes)),
        "redis_url": redis_url,
        "redis_agent_url": env.address("REDIS_AGENT_URL", "", valkey) or agents,
    }


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
