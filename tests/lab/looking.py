"""What the lab's tests look with."""

from __future__ import annotations

from collections.abc import Callable

from app.drivers.base import DeviceSeen, InstanceSeen, Tag
from app.drivers.lxd import PylxdDriver
from tests.lab.lab import Lab

TAG = Tag(1, 2, 1_800_000_000)
Launch = Callable[..., str]


def connect(host: Lab) -> PylxdDriver:
    return PylxdDriver(str(host.socket))


def seen(driver: PylxdDriver, name: str) -> InstanceSeen:
    return driver.observe(frozenset({name})).instances[name]


def only(driver: PylxdDriver, name: str) -> DeviceSeen:
    """The instance's one GPU device."""
    (device,) = seen(driver, name).devices
    return device
