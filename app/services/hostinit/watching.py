"""How the agent's service stands on this machine, for `berth doctor`: as this version would have it, and watched."""

from __future__ import annotations

import re
from collections.abc import Iterator

from app.drivers.system import System
from app.services.checkup import BAD, OK, WARN, Finding
from app.services.hostinit import units
from app.services.hostinit.services import AGENT_UNIT, ENVIRONMENT

_STARTS = re.compile(r"^ExecStart=(\S+) agent (\S+)$", re.MULTILINE)
_AGAIN = "berth host init --yes, as root, with what it was given the first time"


def judge(system: System, host: str) -> Iterator[Finding]:
    """What is to be said of the unit; nothing where this machine has none for that host."""
    text = system.read(AGENT_UNIT) or ""
    starts = _STARTS.search(text)
    if not starts or starts[2] != host:
        return
    shown = system.run(["systemctl", "show", "--property=ActiveState,Type,WatchdogUSec", "berth-agent.service"])
    found = dict(line.split("=", 1) for line in shown.text.splitlines() if "=" in line)
    if not shown.ok or "ActiveState" not in found:
        yield Finding(WARN, "service", "systemd does not say how the agent is", "systemctl status berth-agent")
    elif found["ActiveState"] != "active":
        fix = "journalctl -u berth-agent -e; systemctl restart berth-agent"
        yield Finding(BAD, "service", f"berth-agent.service is {found['ActiveState']}", fix)
    elif text != units.AGENT.format(name=host, berth=starts[1], environment=ENVIRONMENT):
        yield Finding(WARN, "service", "berth-agent.service is not as this version of Berth has it", _AGAIN)
    elif found.get("Type") != "notify" or found.get("WatchdogUSec") in {"0", "infinity", None}:
        detail = "berth-agent.service runs, and nobody starts it anew if it hangs"
        yield Finding(WARN, "service", detail, "Look what undoes it: systemctl cat berth-agent")
    else:
        detail = f"berth-agent.service runs, and is watched: started anew after {found['WatchdogUSec']} of silence"
        yield Finding(OK, "service", detail)
