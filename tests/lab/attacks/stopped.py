"""A holder that is stopped."""

import os
import signal
from contextlib import suppress

from kit import WORK, attack, holder, keeping


def hold(node: str) -> None:
    pid = holder("holder", lambda: keeping(os.open(node, os.O_RDONLY)))
    (WORK / "pid").write_text(str(pid))
    os.kill(pid, signal.SIGSTOP)


def probe(_node: str) -> dict[str, str]:
    with suppress(ProcessLookupError):
        os.kill(int((WORK / "pid").read_text()), signal.SIGCONT)
    return {}


attack(hold, probe)
