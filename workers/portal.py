"""The portal as a child process: gunicorn on a socket that is bound first and kept until all has ended."""

from __future__ import annotations

import errno
import pwd
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import flask

from app.config import Settings
from workers import os_users
from workers.children import Child
from workers.servers import Failed, environment

ROOT = Path(__file__).resolve().parent.parent
OPTIONS = (
    "--workers 2 --worker-class gthread --threads 8 --no-control-socket "
    "--graceful-timeout 3 --timeout 60 --keep-alive 5 --log-level warning wsgi:app"
)


def bind(port: int, patience: float, pause: Callable[[float], None]) -> socket.socket:
    """The portal's socket: requests wait in it while the portal's processes come and go. `patience`: seconds for which
    another program may still have the port. Raises Failed."""
    deadline = time.monotonic() + patience
    while True:
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(("127.0.0.1", port))
            listening.listen(1024)
        except OSError as error:
            listening.close()
            if error.errno == errno.EADDRINUSE and time.monotonic() < deadline:
                pause(0.2)
                continue
            why = f"Port {port} of 127.0.0.1 cannot be used: {error.strerror}."
            raise Failed(f"{why} Choose another one: PORT=8001 make run") from error
        return listening


def child(settings: Settings, listening: socket.socket, news: list[str]) -> Child:
    """The portal's processes; under root they run as a user who may do nothing else. Adds to `news` if that fails."""
    user = _user()
    if user is None and os_users.server_user(os_users.PORTAL) is not None:
        news.append("Other users cannot read this checkout or its Python, so the portal runs as root.")
    number = listening.fileno()
    return Child(
        "portal",
        [sys.executable, "-m", "gunicorn", "--bind", f"fd://{number}", *OPTIONS.split()],
        env=environment(settings, {"SECRET_KEY": settings.ensure_secret_key()}),
        user=user,
        cwd=ROOT,
        pass_fds=(number,),
        death_signal=signal.SIGQUIT,  # at once: the next start needs the port
    )


def postman(settings: Settings) -> Child:
    """The process that tells people what happens: it speaks to the outside, and runs as the portal does."""
    own = environment(settings, {"SECRET_KEY": settings.ensure_secret_key(), "REDIS_URL": ""})
    return Child(
        "postman",
        [sys.executable, "-m", "workers", "post"],
        # Past any proxy: behind one, nobody sees where a message really goes.
        env={name: value for name, value in own.items() if not name.lower().endswith("_proxy")},
        user=_user(),
        cwd=ROOT,
    )


def _user() -> pwd.struct_passwd | None:
    """Who may read the code and do nothing else; None where that cannot be."""
    user = os_users.server_user(os_users.PORTAL)
    return user if user is not None and all(os_users.readable_by_all(path) for path in _code()) else None


def _code() -> list[Path]:
    """What the portal reads: a sample of the checkout and of the packages, and Python itself."""
    return [ROOT / "wsgi.py", ROOT / "app" / "config.py", Path(flask.__file__), Path(sys.executable)]
