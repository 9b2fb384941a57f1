"""Child processes that are kept alive while the supervisor lives, and die with it however it dies."""

from __future__ import annotations

import ctypes
import logging
import os
import pwd
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

log = logging.getLogger(__name__)

FIRST_WAIT, LONGEST_WAIT = 0.5, 15.0  # seconds before a restart; doubled each time
SETTLED = 20.0  # seconds alive after which a death counts as the first one again
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass
class Child:
    """One process. `stop_signal` ends it in peace; `death_signal` is what the kernel sends when the supervisor dies."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] | None = None
    user: pwd.struct_passwd | None = None
    log_file: Path | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    death_signal: signal.Signals = signal.SIGTERM
    pass_fds: tuple[int, ...] = ()
    cwd: Path = Path("/")
    before_start: Callable[[], None] = lambda: None
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    wait: float = field(default=FIRST_WAIT)
    due: float = 0.0

    def start(self) -> None:
        """Start it. From the main thread only: the kernel's death signal is tied to the thread that forked."""
        self.before_start()
        output = subprocess.DEVNULL if self.log_file is None else os.open(self.log_file, _APPEND, 0o640)
        try:
            self.process = subprocess.Popen(  # noqa: S603 - argv is ours
                self.argv,
                env=self.env,
                cwd=self.cwd,
                stdin=subprocess.DEVNULL,
                stdout=output if self.log_file else None,
                stderr=output if self.log_file else None,
                pass_fds=self.pass_fds,
                start_new_session=True,  # Ctrl-C is the supervisor's to hear; it stops its children in order
                preexec_fn=_tie_to(os.getpid(), self.death_signal),  # noqa: PLW1509 - no threads here
                user=None if self.user is None else self.user.pw_uid,
                group=None if self.user is None else self.user.pw_gid,
                extra_groups=None if self.user is None else [],
            )
        finally:
            if self.log_file is not None:
                os.close(output)
        self.started = time.monotonic()

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return self.process.pid if self.process is not None and self.process.poll() is None else None

    def look_after(self) -> None:
        """Start it again if it has died, a little later each time it dies young."""
        if self.process is None or self.process.poll() is None:
            return
        now = time.monotonic()
        if not self.due:
            if now - self.started > SETTLED:
                self.wait = FIRST_WAIT
            self.due = now + self.wait
            log.warning("%s ended with %s; starting it again in %.1f s", self.name, _how(self.process), self.wait)
            self.wait = min(self.wait * 2, LONGEST_WAIT)
        elif now >= self.due:
            self.due = 0.0
            self.start()

    def send(self, number: signal.Signals) -> None:
        """Signal it if it runs."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)


def stop_all(children: Sequence[Child], patience: float, hurry: Callable[[], bool] = lambda: False) -> None:
    """End them side by side; what is still there after `patience` seconds, or when `hurry` says so, is killed."""
    for child in children:
        child.send(child.stop_signal)
    deadline = time.monotonic() + patience
    while any(child.pid for child in children) and time.monotonic() < deadline and not hurry():
        time.sleep(0.02)
    for child in children:
        if child.pid:
            log.warning("%s does not stop, killing it", child.name)
            child.send(signal.SIGKILL)
    for child in children:
        if child.process is not None:
            child.process.wait()
            _end_group(child.process.pid)


_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC


def _end_group(number: int) -> None:
    """What a child has left behind: gunicorn kills workers that are slow to end, and does not wait for them."""
    deadline = time.monotonic() + 1.0
    with suppress(ProcessLookupError, PermissionError):
        # The number stays theirs while there is one of them; where a process has it, it is somebody else's by now.
        while time.monotonic() < deadline and not Path(f"/proc/{number}").exists():
            os.killpg(number, signal.SIGKILL)
            time.sleep(0.01)


def _tie_to(parent: int, number: signal.Signals) -> Callable[[], None]:
    def in_child() -> None:
        _libc.prctl(PR_SET_PDEATHSIG, int(number))
        if os.getppid() != parent:  # it died in between
            os._exit(1)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])  # the supervisor waits for its signals with them blocked

    return in_child


def _how(process: subprocess.Popen[bytes]) -> str:
    code = process.returncode
    return f"status {code}" if code >= 0 else signal.Signals(-code).name
