"""The list of all machines as rows of a file: for programs, so in no language and in plain units."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from app.services.surveys import Row

HEADER = (
    "host", "name", "status", "owner", "image", "cpus_in_use", "cpu_limit", "memory_bytes", "memory_limit",
    "disk_bytes", "disk_limit", "pool", "processes", "addresses", "gpu_devices", "up_since", "snapshots",
)  # fmt: skip


def row(found: Row) -> list[Any]:
    """One instance; empty cells for what is not known."""
    seen = found.seen
    runs = found.status in {"running", "frozen"}
    use = {key: seen.get(key) for key in ("cpu", "memory", "processes")} if runs else {}
    return [
        found.host.name,
        found.name,
        found.status,
        found.owner,
        found.image,
        use.get("cpu"),
        seen.get("cpus", ""),
        use.get("memory"),
        seen.get("memory_limit", ""),
        seen.get("disk"),
        seen.get("disk_limit", ""),
        seen.get("pool", ""),
        use.get("processes"),
        " ".join(seen.get("addresses", ())) if runs else "",
        " ".join(seen.get("gpus", ())),
        _moment(seen.get("started_at")) if runs else "",
        len(seen.get("snapshots", ())),
    ]


def _moment(seconds: float | None) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds") if seconds else ""
