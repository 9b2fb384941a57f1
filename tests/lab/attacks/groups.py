"""Control groups of the container's own."""

from __future__ import annotations

import os
from pathlib import Path

from kit import WORK, mount

NEEDED = ("devices", "freezer", "unified")


def hierarchies() -> dict[str, Path]:
    """Every control group hierarchy, mounted where it can be written to, by its controllers."""
    found = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, names, _ = line.split(":", 2)
        name = names.removeprefix("name=") or "unified"
        found[name] = WORK / f"groups-{name}"
        found[name].mkdir()
        data = f"none,{names}" if names.startswith("name=") else names
        mount("cgroup", str(found[name]), "cgroup2" if not names else "cgroup", 0, data)
    return found


def enter(name: str, places: dict[str, Path]) -> None:
    """Make a group of that name in these hierarchies and move into it; a hierarchy that does not matter may refuse."""
    for place in places.values():
        (place / name).mkdir()
        try:
            (place / name / "cgroup.procs").write_text(str(os.getpid()))
        except OSError:
            if any(needed in place.name for needed in NEEDED):
                raise
