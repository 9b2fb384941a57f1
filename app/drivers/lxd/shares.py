"""Shared directories as LXD's disk devices: no I/O here."""

from __future__ import annotations

from collections.abc import Mapping

from app.drivers.lxd.shapes import Json, owner_of, privileged
from app.drivers.shares import SHARE_DEVICE, Share, SharesSeen


def device(share: Share) -> Json:
    """The disk device. Not required: a directory that is gone must not keep the machine from starting."""
    made = {"type": "disk", "source": share.source, "path": share.path, "shift": "true", "required": "false"}
    return made | ({"readonly": "true"} if share.read_only else {})


def seen(instance: Json) -> SharesSeen:
    """What an instance has."""
    own = instance.get("devices", {})
    found = {name: _share(item) for name, item in own.items() if SHARE_DEVICE.match(name)}
    return SharesSeen(str(instance.get("status", "")).lower(), privileged(instance), found, owner_of(instance))


def change(body: Json, wanted: Mapping[str, Share]) -> bool:
    """Put these and no others into a writable instance; False if it was so already."""
    devices = body["devices"]
    goes = [name for name in devices if SHARE_DEVICE.match(name) and name not in wanted]
    comes = {name: device(share) for name, share in wanted.items() if devices.get(name) != device(share)}
    for name in goes:
        del devices[name]
    devices.update(comes)
    return bool(goes or comes)


def _share(item: Json) -> Share | None:
    found = Share(str(item.get("source")), str(item.get("path")), item.get("readonly") == "true")
    return found if item == device(found) else None
