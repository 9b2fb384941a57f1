"""A file system mounted over /dev, so that LXD does not find the node that it is to unmount."""

from kit import attack, mount, reopen, unmount


def hold(_node: str) -> None:
    mount("tmpfs", "/dev", "tmpfs")


def probe(node: str) -> dict[str, str]:
    unmount("/dev")
    return {"open what was under it": reopen(node)}


attack(hold, probe)
