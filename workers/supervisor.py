"""`berth up`: the servers, the portal, and an agent for each host of this machine; all kept up, all ended together."""

from __future__ import annotations

import http.client
import os
import signal
import sys
import time
from contextlib import closing
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

from flask import Flask
from sqlalchemy.exc import SQLAlchemyError

from app import create_core
from app.config import Settings
from app.extensions import transaction
from app.models import Host
from app.schema import upgrade
from app.services import inventory, zones
from workers import first_start, portal
from workers.children import Child, stop_all
from workers.locks import Held, exclusive
from workers.servers import Failed, Servers, environment, forget_leftovers

STOPPING = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
HEARD = {*STOPPING, signal.SIGCHLD}
ROUND = 0.25  # seconds between two looks at the children
HOSTS_EVERY = 3.0  # seconds between two looks for hosts that were added or removed
AGAIN = 1.0  # seconds after which another signal to stop means: at once
REST_EVERY = 20.0  # seconds between two looks at what is seldom or slow


class Stop(Exception):
    """Somebody asked Berth to stop."""


def main() -> int:
    """Run until SIGINT or SIGTERM; the exit status."""
    signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)  # heard in `pause`, between two steps, and nowhere else
    given = Settings.load()
    note = f"process {os.getpid()}, http://127.0.0.1:{given.port}"
    try:
        with exclusive(given.run_dir / "up.lock", wait=False, note=note):
            crashed = forget_leftovers(given)
            return Supervisor(Settings.load()).run(crashed)
    except Held as holder:
        print(f"Berth is already running on {given.data_dir} ({holder}). Stop it, or set BERTH_DATA.", file=sys.stderr)
    except PermissionError as error:
        print(
            f"{error.filename} belongs to somebody else. Start Berth as its owner, or set BERTH_DATA.", file=sys.stderr
        )
    return 1


@dataclass
class Supervisor:
    """Everything that `berth up` keeps running."""

    settings: Settings
    portal: Child | None = None
    postman: Child | None = None
    agents: dict[str, Child] = field(default_factory=dict)
    news: list[str] = field(default_factory=list)
    announced: bool = False
    stopping_since: float = field(default_factory=time.monotonic)

    def run(self, crashed: bool) -> int:
        """Start everything, look after it, end it. `crashed`: the last run's processes may still be ending."""
        servers = Servers(self.settings, os.environ)
        listening = None
        try:
            listening = portal.bind(self.settings.port, 10.0 if crashed else 0.0, pause)
            servers.start(pause)
            self.settings = servers.settings
            app = self._prepare()
            servers.publish()
            self.portal = portal.child(self.settings, listening, self.news)
            self.portal.start()
            self.postman = portal.postman(self.settings)
            self.postman.start()
            self._watch(app, servers)
        except Stop:
            self.stopping_since = time.monotonic()
            print("Stopping …", flush=True)
        except Failed as error:
            print(error, file=sys.stderr)
            return 1
        finally:
            own = (self.portal, self.postman, *self.agents.values())
            stop_all([child for child in own if child], 8.0, self._hurried)
            servers.stop(self._hurried)
            if listening is not None:
                listening.close()
        return 0

    def _prepare(self) -> Flask:
        """Migrate, and begin with what a new installation begins with."""
        app = create_core(self.settings)
        try:
            upgrade(self.settings.database_url)
            with app.app_context():
                with transaction():
                    zones.write(self.settings.timezone)
                if password := first_start.first_admin(self.settings):
                    self.news.append(f"Sign in as {first_start.ADMIN} with the password  {password}")
                first_start.forget_changed_password(self.settings)
                self.news += first_start.first_hosts(self.settings)
        except SQLAlchemyError as error:
            raise Failed(f"The database cannot be used: {error}") from error
        kept = first_start.password_file(self.settings)
        if kept.exists():
            self.news.append(f"The first admin's password is kept in {kept} until it is changed.")
        return app

    def _watch(self, app: Flask, servers: Servers) -> None:
        """Keep everything up until told to stop."""
        next_look, next_rest = 0.0, time.monotonic() + REST_EVERY
        while True:
            if time.monotonic() >= next_look:
                self._look_at_hosts(app)
                next_look = time.monotonic() + HOSTS_EVERY
            if time.monotonic() >= next_rest:
                self._look_at_rest(app)
                next_rest = time.monotonic() + REST_EVERY
            for child in (*servers.children, self.portal, self.postman, *self.agents.values()):
                if child is not None:
                    child.look_after()
            if not self.announced and self._healthy():
                self._announce()
            pause(ROUND)

    def _look_at_hosts(self, app: Flask) -> None:
        """An agent for each host of this machine; none for a host that is gone."""
        try:
            with app.app_context(), transaction():
                hosts = inventory.hosts()
        except SQLAlchemyError:
            return  # the database is away: everything goes on as it is
        for name in self.agents.keys() - {host.name for host in hosts}:
            stop_all([self.agents.pop(name)], 8.0)
        for host in hosts:
            if host.name not in self.agents and _is_here(host, hosts):
                env = environment(self.settings, {"REDIS_AGENT_URL": self.settings.redis_agent_url})
                argv = [sys.executable, "-m", "workers", "agent", host.name]
                self.agents[host.name] = Child(f"agent of {host.name}", argv, env=env, cwd=portal.ROOT)
                self.agents[host.name].start()

    def _look_at_rest(self, app: Flask) -> None:
        """An LXD that was named and did not answer may do so now; the first password may have been changed."""
        try:
            with app.app_context():
                for line in first_start.first_hosts(self.settings) if self.settings.lxd else []:
                    print(line, flush=True)
                first_start.forget_changed_password(self.settings)
        except SQLAlchemyError:
            return

    def _healthy(self) -> bool:
        try:
            asking = http.client.HTTPConnection("127.0.0.1", self.settings.port, timeout=1)  # past any proxy
            with closing(asking):
                asking.request("GET", "/healthz")
                return asking.getresponse().status == HTTPStatus.OK
        except (http.client.HTTPException, OSError):
            return False

    def _hurried(self) -> bool:
        """Whether somebody asked again to stop. make and timeout pass one signal on twice: that is no second one."""
        return signal.sigtimedwait(STOPPING, 0) is not None and time.monotonic() - self.stopping_since > AGAIN

    @property
    def _url(self) -> str:
        return f"http://127.0.0.1:{self.settings.port}"

    def _announce(self) -> None:
        self.announced = True
        print("\n".join(["", f"Berth is ready: {self._url}", *self.news, "Ctrl-C stops it.", ""]), flush=True)


def pause(seconds: float) -> None:
    """Wait, less long if a child dies. Raises Stop when Berth is to stop."""
    heard = signal.sigtimedwait(HEARD, seconds)
    if heard is not None and heard.si_signo in STOPPING:
        raise Stop


def _is_here(host: Host, hosts: list[Host]) -> bool:
    """Whether this machine is the host, or the only way to it. A socket's path alone does not tell two hosts apart."""
    if host.endpoint.startswith(("sim:", "https:")):
        return True
    return Path(host.endpoint).exists() and sum(other.endpoint == host.endpoint for other in hosts) == 1
