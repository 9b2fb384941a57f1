"""Holders that are stopped, in a group that its own root freezes again as soon as it is thawed."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

from fight import done, hold, leave, wait
from groups import enter, hierarchies
from kit import WORK

WORK.mkdir(parents=True)
FREEZER = {"freezer": hierarchies()["freezer"]}
STATE = FREEZER["freezer"] / "ice" / "freezer.state"


def holder(ready: Callable[[], None]) -> None:
    kept = hold()
    if not STATE.exists():
        enter("ice", FREEZER)
    else:
        Path(STATE.parent, "cgroup.procs").write_text(str(os.getpid()))
    wait(ready)
    os.close(kept)


def freezer(ready: Callable[[], None]) -> None:
    ready()
    while True:
        STATE.write_text("FROZEN")


for pid in [leave(holder), leave(holder)]:
    os.kill(pid, signal.SIGSTOP)
leave(freezer)
done()
