"""What a look at a shared directory found, in words, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass

from app.language import lazy_gettext as _l
from app.models import SharedDirectory

FINDINGS = {  # code → what was found, what to do
    "missing": (_l("There is no such directory on the host."), _l("Make it, or mount what belongs there.")),
    "link": (_l("A part of the path is a symbolic link."), _l("Write the real path: realpath shows it.")),
    "directory": (_l("It is not a directory, or cannot be opened."), ""),
    "parent": (
        _l("Somebody other than root may put another directory in its place."),
        _l("Every directory above it must belong to root and be writable for root alone."),
    ),
    "system": (_l("It belongs to the system, or the path is no plain one."), _l("Choose another one.")),
    "lxd": (_l("It is LXD's own directory, or lies there."), _l("Choose another one.")),
    "read_only": (
        _l("The file system is mounted read-only there."),
        _l("Mount it for writing, or share it to be read only."),
    ),
    "flags": (
        _l("Mount options are missing, so that a program that root leaves there in a machine could run as root here."),
        _l("Mount it on its own with nosuid and nodev. This line in /etc/fstab does so: %(line)s"),
    ),
    "idmap": (
        _l("The file system cannot be mounted id-mapped, so the owners of files would be wrong."),
        _l("Use ext4, XFS, btrfs, tmpfs, or ZFS from 2.2 on."),
    ),
    "owner": (_l("The directory does not belong to root."), _l("Run this on the host: chown root %(source)s")),
    "open": (
        _l("Others may write to the directory that holds everybody's own."),
        _l("Run this on the host: chmod 755 %(source)s"),
    ),
    "group": (
        _l("The directory belongs to another group, which would lose it."),
        _l("Run this on the host: chgrp root %(source)s"),
    ),
    "person": (_l("Somebody's own directory could not be made."), _l("Look at what has that name on the host.")),
    "remote": (
        _l("The host's agent runs on another machine and sees no directories."),
        _l("Run the agent on the workstation itself, with LXD's socket."),
    ),
    "old": (
        _l("This LXD takes no file system for fit on this kernel."),
        _l("Use LXD 5.0.4, 5.21.2 or newer, or a Linux before 6.9."),
    ),
}


@dataclass(frozen=True)
class Finding:
    """One thing that the agent found, in words."""

    bad: bool
    what: str
    detail: str
    fix: str


def findings(share: SharedDirectory) -> list[Finding]:
    """What was found of a directory."""
    line = f"{share.source} {share.source} none bind,nosuid,nodev 0 0"
    found = []
    for item in share.findings:
        what, fix = FINDINGS.get(item["code"], (item["code"], ""))
        found.append(
            Finding(
                item["level"] == "bad", str(what), item["detail"], str(fix) % {"source": share.source, "line": line}
            )
        )
    return found
