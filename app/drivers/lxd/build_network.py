"""A network for the time of one build, on a host that gives its machines none: packages have to come from somewhere."""

from __future__ import annotations

import zlib

from app.drivers.base import TAG_PREFIX
from app.drivers.lxd.errors import RefusedError
from app.drivers.lxd.network import BRIDGE_CONFIG, MARK, NIC
from app.drivers.lxd.shapes import Json
from app.drivers.lxd.wire import Wire

BUILDER = TAG_PREFIX + "builder"
_LIMIT = 30.0  # seconds


def nic(wire: Wire, template: int) -> Json:
    """The NIC for the builder, on a bridge of its own."""
    name = _name(wire, template)
    if name not in {found["name"] for found in wire.get("networks", recursion=1) or []}:
        number = zlib.crc32(name.encode())
        address = f"10.{200 + number % 50}.{number // 50 % 256}.1/24"
        config = {key: value for key, value in BRIDGE_CONFIG.items() if key != MARK}
        config |= {"ipv4.address": address, BUILDER: str(template)}
        wire.send("post", "networks", json={"name": name, "type": "bridge", "config": config}, limit=_LIMIT)
    return {NIC: {"type": "nic", "name": NIC, "network": name}}


def remove(wire: Wire, template: int) -> None:
    """Take the bridge away again; none is fine."""
    name = _name(wire, template)
    found = {one["name"]: one for one in wire.get("networks", recursion=1) or [] if one.get("managed")}
    if name not in found or (found[name].get("config") or {}).get(BUILDER) != str(template):
        return
    try:
        wire.send("delete", "networks", name, limit=_LIMIT)
    except RefusedError as error:
        if error.code != 404:
            raise


def _name(wire: Wire, template: int) -> str:
    """One for each LXD of this machine, too: they share its network."""
    return f"bb{zlib.crc32(f'{wire.endpoint} {template}'.encode()):08x}"
