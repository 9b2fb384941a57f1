"""From a host's endpoint to its driver."""

from __future__ import annotations

from pathlib import Path

from app.drivers.base import LxdDriver
from app.drivers.kernel import Kernel
from app.drivers.shares import Directories


def connect(endpoint: str, host_name: str, data_dir: Path) -> LxdDriver:
    """The driver for a host: `sim:` is simulated under `data_dir`, all else is LXD's socket or https address.

    Nothing is contacted yet. Imports are here so that a process without LXD needs no pylxd."""
    if endpoint.startswith("sim:"):
        from app.drivers.fake import FakeLxd  # noqa: PLC0415

        return FakeLxd(data_dir / "sim" / f"{host_name}.json")
    from app.drivers.lxd import PylxdDriver  # noqa: PLC0415

    return PylxdDriver(endpoint)


def kernel_of(driver: LxdDriver, endpoint: str, host_name: str, data_dir: Path) -> Kernel | None:
    """The kernel of the host that `driver` speaks to; None where that is another machine than this one."""
    if endpoint.startswith("sim:"):
        from app.drivers.fake_kernel import FakeKernel  # noqa: PLC0415

        return FakeKernel(data_dir / "sim" / f"{host_name}.json")
    from app.drivers.holders.host import HostKernel  # noqa: PLC0415
    from app.drivers.lxd import PylxdDriver  # noqa: PLC0415

    assert isinstance(driver, PylxdDriver)
    return HostKernel(driver.devices_dir) if endpoint.startswith("/") else None


def directories_of(endpoint: str) -> Directories:
    """The file systems of the host behind an endpoint; of one on another machine nothing can be said."""
    if endpoint.startswith("sim:"):
        from app.drivers.fake_directories import FakeDirectories  # noqa: PLC0415

        return FakeDirectories()
    from app.drivers.directories import HostDirectories, NoDirectories  # noqa: PLC0415

    return HostDirectories(str(Path(endpoint).resolve().parent)) if endpoint.startswith("/") else NoDirectories()
