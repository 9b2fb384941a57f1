"""`berth up` as a program: started, watched, stopped and killed; and what it leaves behind."""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from flask import Flask
from redis import Redis

from app import create_core, queue
from app.config import Settings
from app.drivers.holders.nodes import start_time
from app.extensions import db
from app.services import inventory

DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # 127.0.0.1 is behind no proxy
ROOT = Path(__file__).resolve().parents[2]


def wait_for(what: Callable[[], Any], seconds: float = 25.0, why: str = "") -> Any:
    """The first true answer of `what`. Unless told otherwise it waits long enough for a busy machine, and less than an
    agent's tick, so that what came was asked for."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {why or what}"
        time.sleep(0.03)
    return found


def wakes(berth: Berth, seconds: float = 20.0) -> bool:
    """Whether a wake makes the agent look: its tick is minutes away. Give one second where a wake may be lost, and ask
    again."""
    deadline = time.monotonic() + seconds
    with berth.app().app_context():
        before = inventory.host("sim1").pass_at
        db.session.remove()
        queue.wake("sim1")
        while time.monotonic() < deadline:
            if inventory.host("sim1").pass_at != before:
                return True
            db.session.remove()
            time.sleep(0.025)
    return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(data: Path, port: int, **more: str) -> dict[str, str]:
    """The environment of a program, without what another Berth or another test left in ours."""
    outer = {key: value for key, value in os.environ.items() if not key.startswith(("BERTH_", "DATABASE_", "REDIS_"))}
    own = {"BERTH_DATA": str(data), "PORT": str(port), "BERTH_SLOT": "1", "BERTH_TICK": "30", "BERTH_TZ": "UTC"}
    return {**outer, "LXD_DIR": "/nowhere", **own, **more}


class Berth:
    """One `berth up` on a data directory."""

    def __init__(self, data: Path, port: int = 0, **more: str) -> None:
        self.data, self.port = data, port or free_port()
        self.environment = environment(data, self.port, **more)
        self.lines: list[str] = []
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "workers", "up"],
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines.extend(line.rstrip() for line in self.process.stdout)

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def ready(self) -> Berth:
        """Wait until it says that it is ready."""

        def said() -> bool:
            assert self.process.poll() is None, self.output
            return "Ctrl-C stops it." in self.lines

        wait_for(said, 180, "ready")  # its processes start in seconds, but not where two labs take their images apart
        return self

    def health(self) -> dict[str, Any]:
        try:
            with DIRECT.open(f"http://127.0.0.1:{self.port}/healthz", timeout=20) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            return json.load(error)

    def book(self) -> dict[str, str]:
        return json.loads((self.data / "run" / "services.json").read_text())

    def redis(self, login: str) -> Redis:
        """Valkey as the web or as an agent."""
        return Redis.from_url(self.book()["redis_url" if login == "web" else "redis_agent_url"], socket_timeout=20)

    @cache  # noqa: B019 - there are few of us
    def app(self) -> Flask:
        """The application on the running servers, as another command here has it; one, so that it connects once."""
        return create_core(Settings.load(self.environment | {"SECRET_KEY": "only for tests"}))

    def workers(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`python -m workers …` beside it."""
        command = [sys.executable, "-m", "workers", *arguments]
        return subprocess.run(
            command, cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=180, check=False
        )

    def pids(self, word: str) -> list[int]:
        """Its processes whose command line holds `word`, the one that began first before its children: those are so
        for a moment too, until they are another program, and a kernel gives small numbers again after the large."""
        named = [pid for pid, line in processes(self.data).items() if word in line]
        return sorted(named, key=lambda pid: (start_time(pid) or math.inf, pid))

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """End it in peace; the exit status."""
        self.process.send_signal(number)
        return self.process.wait(120)

    def kill(self) -> None:
        """End it and everything that belongs to it, for a test that failed."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for pid in processes(self.data):
            os.kill(pid, signal.SIGKILL)


def processes(data: Path) -> dict[int, str]:
    """What runs on a data directory, by its command line or its environment: id and command line."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes()
                if str(data).encode() in line + (entry / "environ").read_bytes() and line:
                    found[int(entry.name)] = line.replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
    return found
