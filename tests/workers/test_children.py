"""Child processes: kept alive, ended together, and never outliving who started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.runtime.running import ROOT, wait_for
from workers.children import Child, stop_all

SLEEP = [sys.executable, "-c", "import time; time.sleep(100)"]
DEAF = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(100)",
]


def test_a_child_that_dies_is_started_again_a_little_later(monkeypatch) -> None:
    monkeypatch.setattr("workers.children.FIRST_WAIT", 0.05)
    child = Child("sleeper", SLEEP, wait=0.05)
    child.start()
    first = child.pid
    try:
        assert first is not None
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: child.pid is None)
        child.look_after()
        assert child.pid is None  # not at once
        assert child.wait == 0.1  # and later each time it dies young

        def back() -> bool:
            child.look_after()
            return child.pid not in {None, first}

        wait_for(back)
    finally:
        stop_all([child], 5)
    assert child.pid is None


def test_who_does_not_stop_is_killed(tmp_path: Path) -> None:
    children = [Child("deaf", DEAF, log_file=tmp_path / "log"), Child("sleeper", SLEEP)]
    for child in children:
        child.start()
    wait_for((tmp_path / "log").read_text)
    began = time.monotonic()
    stop_all(children, 0.5)
    assert 0.4 < time.monotonic() - began < 5
    assert all(child.pid is None for child in children)


def test_children_die_with_a_parent_that_is_killed() -> None:
    program = f"from workers.children import Child\nimport time\nc = Child('x', {SLEEP!r})\nc.start()\n"
    parent = subprocess.Popen(
        [sys.executable, "-c", program + "print(c.pid, flush=True)\ntime.sleep(100)"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert Path(f"/proc/{child}").exists()
    parent.kill()
    parent.wait()
    wait_for(lambda: not running(child))


def test_what_a_dead_child_left_is_killed_and_who_has_its_number_now_is_not() -> None:
    leaving = f"import subprocess as s; print(s.Popen({SLEEP!r}).pid, flush=True)"
    child = Child("leaver", [])
    with subprocess.Popen([sys.executable, "-c", leaving], stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        left = int(process.stdout.readline())
    child.process = process
    assert running(left)
    stop_all([child], 1)
    wait_for(lambda: not running(left))

    stranger = subprocess.Popen(SLEEP, start_new_session=True)
    try:
        process.pid = stranger.pid  # the kernel gives small numbers again after the large
        stop_all([child], 1)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
