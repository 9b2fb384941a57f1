"""From a host's endpoint to its driver."""

from __future__ import annotations

from pathlib import Path

from app.drivers.base import LxdDriver


def connect(endpoint: str, host_name: str, data_dir: Path) -> LxdDriver:
    """The driver for a host: `sim:` is simulated under `data_dir`, all else is LXD's socket or https address.

    Nothing is contacted yet. Imports are here so that a process without LXD needs no pylxd."""
    if endpoint.startswith("sim:"):
        from app.drivers.fake import FakeLxd  # noqa: PLC0415

        return FakeLxd(data_dir / "sim" / f"{host_name}.json")
    from app.drivers.lxd import PylxdDriver  # noqa: PLC0415

    return PylxdDriver(endpoint)
