"""A process in a user, mount and process namespace of its own, with a copy of the node in there."""

import os
from pathlib import Path

from kit import CLONE_NEWPID, CLONE_NEWUSER, Tries, attack, copy, holder, private_mounts, reopen, unshare

COPY = "/root/inside"


def hold(node: str) -> None:
    def prepare() -> Tries:
        unshare(CLONE_NEWUSER)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text("0 0 1")
        Path("/proc/self/gid_map").write_text("0 0 1")
        private_mounts()
        unshare(CLONE_NEWPID)
        if os.fork():
            os._exit(0)
        copy(node, COPY)
        return {"open its copy": lambda: reopen(COPY)}

    holder("holder", prepare)


attack(hold)
