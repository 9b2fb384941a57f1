"""PostgreSQL and Valkey for `berth up`: the given ones, or embedded ones with passwords of their own."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import psycopg

from app.config import Settings
from workers import embedded_postgres, embedded_valkey, os_users
from workers.children import Child, stop_all

LONGEST_SOCKET = 100  # characters of a socket's path; the kernel takes 107
PATIENCE = 60.0  # seconds for a server to answer, recovery after a crash included


class Failed(Exception):
    """Berth cannot start; the text says why and what to do."""


class Servers:
    """The servers behind the portal. `settings`, after `start`, holds their addresses."""

    def __init__(self, settings: Settings, environ: Mapping[str, str]) -> None:
        self.settings = settings
        self._own_database = not environ.get("DATABASE_URL")
        self._own_valkey = not environ.get("REDIS_URL")
        self._user = os_users.server_user(os_users.DATABASE) if self._own_database or self._own_valkey else None
        self.children: list[Child] = []
        self._sockets = Path()

    @property
    def address_book(self) -> Path:
        """Where other commands on this machine find the servers while they run."""
        return self.settings.run_dir / "services.json"

    def start(self, pause: Callable[[float], None]) -> None:
        """Start what is embedded and wait for it with `pause`. Raises Failed."""
        self._make_directories()
        passwords = self._passwords()
        logs, run = self.settings.data_dir / "log", self._sockets
        if self._own_valkey:
            web, agent = (embedded_valkey.url(login, passwords[login], run) for login in ("web", "agent"))
            self._keep(embedded_valkey.child(run, logs / "valkey.log", self._user, passwords))
            self.settings = replace(self.settings, redis_url=web, redis_agent_url=agent)
        if self._own_database:
            data = self.settings.data_dir / "postgres"
            try:
                embedded_postgres.initialise(data, self._user)
            except (RuntimeError, OSError) as error:
                raise Failed(str(error)) from error
            self._keep(embedded_postgres.child(data, run, logs / "postgres.log", self._user))
            self.settings = replace(self.settings, database_url=embedded_postgres.url(passwords["database"], run))
            self._await("PostgreSQL", lambda: self._logged_in(passwords["database"]), pause, logs / "postgres.log")
        if self._own_valkey:
            url = self.settings.redis_url
            self._await("Valkey", lambda: embedded_valkey.answers(url), pause, logs / "valkey.log")

    def publish(self) -> None:
        """Let other commands on this machine find the servers."""
        book = {
            "database_url": self.settings.database_url,
            "redis_url": self.settings.redis_url,
            "redis_agent_url": self.settings.redis_agent_url,
            "sockets": str(self._sockets),
        }
        new = self.address_book.with_suffix(".new")
        new.unlink(missing_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(book, file)
        new.rename(self.address_book)

    def stop(self, hurry: Callable[[], bool]) -> None:
        """End the servers; nothing is left of them but their data."""
        self.address_book.unlink(missing_ok=True)
        stop_all(self.children, 15.0, hurry)
        if self._sockets != Path():
            shutil.rmtree(self._sockets, ignore_errors=True)

    def _keep(self, child: Child) -> None:
        self.children.append(child)
        child.start()

    def _make_directories(self) -> None:
        """Directories that only their users can look into; with root's help, others may pass through."""
        settings, passable = self.settings, 0o711 if os.geteuid() == 0 else 0o700
        settings.data_dir.mkdir(parents=True, exist_ok=True, mode=passable)
        os_users.own(settings.run_dir, None, passable)
        os_users.own(settings.data_dir / "log", None, 0o700)
        if self._user is not None:
            os_users.make_passable(settings.run_dir)
        self._sockets = settings.run_dir / "sockets"
        if len(str(self._sockets)) + len("/.s.PGSQL.5432.lock") > LONGEST_SOCKET:
            self._sockets = Path(tempfile.mkdtemp(prefix="berth-"))
        os_users.own(self._sockets, self._user, passable)

    def _passwords(self) -> dict[str, str]:
        """The embedded servers' passwords, made once: an agent that was started by hand outlives a restart."""
        path = self.settings.data_dir / "passwords.json"
        try:
            return {str(key): str(value) for key, value in json.loads(path.read_text()).items()}
        except FileNotFoundError:
            made = {name: secrets.token_urlsafe(24) for name in ("web", "agent", "database")}
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                json.dump(made, file)
            return made
        except ValueError as error:
            raise Failed(f"{path} cannot be read ({error}). Remove it; new passwords are made.") from error

    def _logged_in(self, password: str) -> bool:
        try:
            embedded_postgres.ensure_login(self._sockets, password)
        except psycopg.OperationalError:
            return False
        return True

    def _await(self, name: str, ready: Callable[[], bool], pause: Callable[[float], None], log_file: Path) -> None:
        waited = 0.0
        while not ready():
            if waited > PATIENCE:
                tail = "\n".join(log_file.read_text(errors="replace").splitlines()[-8:])
                raise Failed(f"{name} does not start. The end of {log_file}:\n{tail}")
            for child in self.children:
                child.look_after()
            pause(0.05)
            waited += 0.05


def environment(settings: Settings, more: dict[str, str]) -> dict[str, str]:
    """What a child process is told. The agents' login to Valkey is only in it if `more` holds it."""
    own = {
        "BERTH_DATA": str(settings.data_dir),
        "DATABASE_URL": settings.database_url,
        "REDIS_URL": settings.redis_url,
        "REDIS_AGENT_URL": "",
        "PYTHONUNBUFFERED": "1",
    }
    return {**os.environ, **own, **more}


def forget_leftovers(settings: Settings) -> bool:
    """Remove what a supervisor that was killed left behind. Only for who holds the lock. Whether there was any."""
    book = settings.run_dir / "services.json"
    try:
        sockets = Path(json.loads(book.read_text())["sockets"])
    except (OSError, ValueError, KeyError):
        return False
    if sockets.parent == Path(tempfile.gettempdir()) and sockets.name.startswith("berth-"):
        shutil.rmtree(sockets, ignore_errors=True)
    book.unlink(missing_ok=True)
    return True
