"""What a lab is made of: Debian's packages, and an image that debootstrap builds once and a cache keeps."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

# LXD's rules for bridges go through nft; with iptables it wants modules that not every kernel has
PACKAGES = [
    "lxd", "debootstrap", "btrfs-progs", "dnsmasq-base", "nftables", "iptables", "uidmap", "attr", "squashfs-tools",
]  # fmt: skip
CACHE = Path(os.environ.get("BERTH_LAB_CACHE", "/var/cache/berth-lab"))
# python3 for who attacks from inside, with every tool (python3-minimal lacks ctypes and json)
_INCLUDE = {"base": "systemd,systemd-sysv,dbus,iproute2,openssh-server,sudo,procps,python3"}
_INCLUDE["networked"] = f"{_INCLUDE['base']},udev,systemd-resolved"  # asks its bridge for an address and for names
# A computer on which nobody has installed anything yet, but Python; what Berth installs there waits in apt's cache.
_INCLUDE["workstation"] = "systemd,systemd-sysv,dbus,iproute2,procps,python3,kmod"
KINDS = tuple(_INCLUDE)
_WAITS = ["lxd", "btrfs-progs", "nftables", "dnsmasq-base"]
_DHCP = "[Match]\nName=eth0\n\n[Network]\nDHCP=yes\n"
_LEFT_OUT = ["usr/share/doc", "usr/share/locale", "usr/share/man", "var/lib/apt/lists", "var/cache/apt/archives"]
_METADATA = """\
architecture: {machine}
creation_date: {now:.0f}
properties: {{os: debian, release: bookworm, description: "Debian bookworm {kind}"}}
"""


def missing_packages() -> list[str]:
    """Those of PACKAGES that this machine lacks."""
    if not shutil.which("dpkg-query"):
        return PACKAGES
    asked = ["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\n", *PACKAGES]
    shown = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.splitlines()
    return [name for name in PACKAGES if f"{name} installed" not in shown]


def ensure_packages() -> str:
    """Install what is missing, as root on Debian; returns why there can be no lab, or nothing."""
    if os.geteuid() != 0:
        return "a lab needs root"
    if not (missing := missing_packages()):
        return ""
    if not shutil.which("apt-get"):
        return f"missing packages, and no apt-get: {' '.join(missing)}"
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "-q", "update"], ["apt-get", "-qy", "install", "--no-install-recommends", *missing]):
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=600)
    return "" if done.returncode == 0 else f"apt-get cannot install {' '.join(missing)}: {done.stderr[-300:].strip()}"


def image(kind: str = "base") -> Path:
    """The image's tarball from the cache, built first if need be (over a minute)."""
    CACHE.mkdir(parents=True, exist_ok=True)
    ready = CACHE / f"{kind}-{_recipe(kind)}.tar.gz"
    with (CACHE / f"{kind}.lock").open("w") as lock:  # two suites at once build it once
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ready.exists():
            _build(kind, ready)
            for older in {CACHE / f"{kind}.tar.gz", *CACHE.glob(f"{kind}-*.tar.gz")} - {ready}:
                older.unlink(missing_ok=True)
    return ready


def _recipe(kind: str) -> str:
    """Short for what the image is made of: another recipe is another file."""
    waits = _WAITS if kind == "workstation" else []
    return hashlib.sha256(repr((_INCLUDE[kind], _LEFT_OUT, _METADATA, *waits)).encode()).hexdigest()[:8]


def _build(kind: str, ready: Path) -> None:
    with tempfile.TemporaryDirectory(dir=CACHE, prefix=f"{kind}-") as name:
        work = Path(name)
        mirror = [os.environ["BERTH_LAB_MIRROR"]] if os.environ.get("BERTH_LAB_MIRROR") else []
        options = ["--variant=minbase", f"--include={_INCLUDE[kind]}"]
        _run("debootstrap", *options, "bookworm", str(work / "rootfs"), *mirror)
        (work / "rootfs/etc/resolv.conf").unlink(missing_ok=True)
        if kind == "networked":
            _ask_for_address(work / "rootfs")
        if kind == "workstation":
            _download(work / "rootfs")
        for left_out in _LEFT_OUT[: 3 if kind == "workstation" else None]:  # half of all, unpacked once by each lab
            shutil.rmtree(work / "rootfs" / left_out, ignore_errors=True)
            (work / "rootfs" / left_out).mkdir(parents=True)
        text = _METADATA.format(machine=os.uname().machine, now=time.time(), kind=kind)
        (work / "metadata.yaml").write_text(text)
        fresh = ready.with_suffix(".new")
        _run("tar", "-C", str(work), "--numeric-owner", "-czf", str(fresh), "metadata.yaml", "rootfs")
        fresh.rename(ready)


def _ask_for_address(root: Path) -> None:
    (root / "etc/systemd/network/eth0.network").write_text(_DHCP)
    (root / "etc/resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")
    _run("chroot", str(root), "systemctl", "enable", "systemd-networkd")


def _download(root: Path) -> None:
    shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
    (root / "etc/dpkg/dpkg.cfg.d/lab").write_text("force-unsafe-io\n")  # nothing here must survive a crash
    install = ["install", "-qy", "--download-only", "--no-install-recommends", *_WAITS]
    for words in (["clean"], ["-q", "update"], install):
        _run("chroot", str(root), "apt-get", *words)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1800)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {(done.stdout + done.stderr)[-1000:]}")
