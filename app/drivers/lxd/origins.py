"""Who put an instance's devices there, as far as names and marks tell: no I/O here."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from app.drivers.base import DEVICE_NAME, TAG_PREFIX
from app.drivers.doors import DEVICES as DOORS
from app.drivers.lxd import libraries, shapes
from app.drivers.lxd.shapes import Json
from app.drivers.shares import SHARE_DEVICE
from app.drivers.survey import BERTH, HAND

PROFILE = "profile:"


def origins(found: Json, profiles: Mapping[str, Collection[str]]) -> dict[str, str]:
    """By device: BERTH, HAND, or `profile:NAME`. `profiles`: the names of each profile's devices. Of several profiles
    with a device of one name, LXD goes by the last."""
    own = found.get("devices") or {}
    return {
        name: _own(found, name, device) if name in own else _of_profile(found, name, profiles)
        for name, device in (found.get("expanded_devices") or {}).items()
    }


def _own(found: Json, name: str, device: Json) -> str:
    config = found.get("config") or {}
    if not config.get(shapes.OWNER):
        return HAND
    if DEVICE_NAME.match(name):
        return BERTH if TAG_PREFIX + name in config else HAND  # the name alone anybody can give
    ours = name in {*DOORS.values(), *libraries.DEVICES} or SHARE_DEVICE.match(name)
    made_with = device.get("path") == "/" or device.get("type") in {"nic", "none"}
    return BERTH if ours or made_with else HAND


def _of_profile(found: Json, name: str, profiles: Mapping[str, Collection[str]]) -> str:
    having = [profile for profile in found.get("profiles") or () if name in profiles.get(profile, ())]
    return PROFILE + (str(having[-1]) if having else "")
