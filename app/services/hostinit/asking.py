"""What the steps ask LXD and the distribution."""

from __future__ import annotations

import json
from typing import Any

from app.drivers.system import System


def ask(system: System, path: str) -> Any:
    """What LXD keeps there; None where there is no LXD or no such thing."""
    done = system.run(["lxc", "query", f"/1.0/{path}".rstrip("/")])
    return json.loads(done.text) if done.ok else None


def by_snap(system: System) -> bool:
    """Whether LXD comes from the snap here, as on Ubuntu."""
    return "ubuntu" in distribution(system)


def distribution(system: System) -> set[str]:
    """What the host calls itself, and what it says it is like."""
    lines = dict(line.split("=", 1) for line in (system.read("/etc/os-release") or "").splitlines() if "=" in line)
    return {word for key in ("ID", "ID_LIKE") for word in lines.get(key, "").strip('"').split()}
