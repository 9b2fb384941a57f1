"""What agents found on their hosts, in words: who put a device there, what a pool keeps, how NVIDIA's libraries come,
and what an admin did to somebody's machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.language import gettext as _
from app.language import lazy_gettext as _l
from app.models import Host, LibraryChoice

ORIGINS = {"berth": _l("Berth itself"), "hand": _l("by hand")}
POOLS = {  # by driver: whether a machine is kept to its disk's size
    "zfs": _l("keeps machines to their disk's size"),
    "btrfs": _l("keeps machines to their disk's size, but root in one can get around it"),
    "lvm": _l("keeps machines to their disk's size"),
    "ceph": _l("keeps machines to their disk's size"),
    "dir": _l("does not keep machines to their disk's size"),
}
CHOICES = {
    LibraryChoice.AUTO: _l("The best way the host can do"),
    LibraryChoice.RUNTIME: _l("By nvidia.runtime, as a machine starts"),
    LibraryChoice.MOUNT: _l("A read-only directory in each machine"),
    LibraryChoice.OWN: _l("Each machine brings its own"),
}
WAYS = {  # of drivers.libraries, with the choice that it answers
    "nvidia.runtime": (LibraryChoice.RUNTIME, _l("LXD brings them in as a machine starts (nvidia.runtime).")),
    "mount": (LibraryChoice.MOUNT, _l("New machines have them read-only at /usr/local/nvidia.")),
    "install": (LibraryChoice.OWN, _l("Each machine has to bring its own.")),
}
WHYS = {
    "best": _l("NVIDIA's container tools reach the driver."),
    "chosen": _l("An admin chose so."),
    "no_runtime": _l("This LXD has no nvidia.runtime."),
    "no_tools": _l("NVIDIA's container tools, which nvidia.runtime needs, are missing or do not reach the driver."),
    "no_files": _l("The host has no library of exactly the loaded driver's version."),
    "no_driver": _l("No NVIDIA driver that says its version is loaded."),
    "remote": _l("LXD is asked over the network: its host's files are out of reach."),
}
DEEDS = {  # of services.visits
    "terminal.opened": _l("opened a terminal in it, as root"),
    "instance.read": _l("read a log of it"),
    "instance.start.asked": _l("started it"),
    "instance.stop.asked": _l("stopped it"),
    "instance.restart.asked": _l("restarted it"),
    "instance.freeze.asked": _l("paused it"),
    "instance.resize.asked": _l("changed its size"),
    "instance.renamed": _l("renamed it"),
    "instance.rebuild.asked": _l("rebuilt it"),
    "instance.restore.asked": _l("put it back to a snapshot"),
    "instance.password.asked": _l("made a new password in it"),
    "instance.move.asked": _l("moved it to another host"),
    "instance.snapshot.asked": _l("made a snapshot of it"),
    "instance.forget.asked": _l("deleted a snapshot of it"),
    "instance.schedule": _l("changed the schedule of its snapshots"),
    "instance.backup.asked": _l("had a backup of it made"),
    "backup.fetched": _l("downloaded a backup of it"),
    "backup.removed": _l("removed a backup of it"),
    "instance.published": _l("made a template of it, with all its files"),
    "instance.autostart": _l("changed whether it starts by itself"),
    "instance.libraries.asked": _l("gave it the host's NVIDIA libraries"),
    "instance.mend.asked": _l("had the ways into it set up anew"),
    "instance.delete.asked": _l("had it deleted"),
    "instance.delete_later": _l("marked it to be deleted"),
    "instance.kept": _l("kept it from being deleted"),
    "ssh_key.added": _l("added an SSH key that lets into it"),
}
READABLE = {"log": _l("LXD's log"), "console": _l("Its console")}


def origin(seen: Mapping[str, Any], device: str) -> str:
    """Who put a device into an instance."""
    found = str(seen.get("origins", {}).get(device, ""))
    kind, _colon, name = found.partition(":")
    if kind == "profile":
        return _("profile %(name)s", name=name)
    return str(ORIGINS.get(kind, _("not known")))


def pool_keeps(driver: str) -> str:
    """Whether a pool of that driver keeps machines to their size."""
    return str(POOLS.get(driver, _("not known whether it keeps machines to their disk's size")))


def libraries(host: Host) -> dict[str, str]:
    """How NVIDIA's libraries come into its new machines: `way`, `why`, and what is to be said besides, `note`."""
    seen = host.libraries_seen
    if not seen:
        return {"way": _("The host's agent has not said yet."), "why": "", "note": ""}
    answers, way = WAYS[seen["way"]]
    note = ""
    if seen.get("choice") != host.libraries:
        note = _("Another way was chosen just now. The host's agent takes it up within half a minute.")
    elif host.libraries not in {LibraryChoice.AUTO, answers}:
        note = _("What was chosen, this host cannot do now: %(choice)s.", choice=CHOICES[LibraryChoice(host.libraries)])
    return {"way": str(way), "why": str(WHYS[seen["why"]]), "note": note}
