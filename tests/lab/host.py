"""Turns the mount namespace it is started in into a host with emulated NVIDIA GPUs, then becomes LXD.

Run as a script by `lab.py` (under `unshare --mount`), standard library only. Arguments: one JSON object.
What LXD 5.0 reads to find a GPU: /sys/bus/pci/devices/*/{class,vendor,device,driver}, and of NVIDIA's driver
/proc/driver/nvidia/gpus/ADDRESS/information. The device nodes themselves are made by `lab.py`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path


def mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True)


def gpu(pci: Path, driver: Path, model: str, address: str, minor: int, drm: str, kernel_module: Path) -> None:
    device = pci / "devices" / address
    device.mkdir(parents=True)
    # LXD resolves `driver` of every device; one that dangles makes it list no GPU at all.
    (device / "driver").symlink_to(kernel_module)
    # `device` has to be a file: LXD follows a directory of that name in search of a parent.
    texts = {"class": "0x030200", "vendor": "0x10de", "device": "0x2230", "numa_node": "0"}
    for name, text in texts.items():
        (device / name).write_text(text + "\n")
    (device / "uevent").write_text(f"DRIVER=nvidia\nPCI_CLASS=30200\nPCI_ID=10DE:2230\nPCI_SLOT_NAME={address}\n")
    if drm:  # nothing answers behind 195:N; a "DRM card" that is /dev/full, say, comes along and can be opened
        card = device / "drm" / f"card{minor}"
        card.mkdir(parents=True)
        (card / "dev").write_text(drm + "\n")
    information = driver / "nvidia" / "gpus" / address / "information"
    information.parent.mkdir(parents=True)
    information.write_text(f"Model: \t\t {model}\nDevice Minor: \t {minor}\n")


def emulate(base: Path, gpus: list[tuple[str, int, str]], model: str, root: Path = Path("/")) -> None:
    """Give the host under `root` these GPUs, from `base`, in this mount namespace."""
    for name in ("pci", "driver", "proc", "sys"):
        (base / name).mkdir(parents=True, exist_ok=True)
    # Below, parts of /proc and /sys get covered, and then the kernel refuses a container's own proc and sysfs
    # ("Operation not permitted") unless uncovered ones are mounted somewhere in this namespace.
    mount("-t", "proc", "proc", base / "proc")
    mount("-t", "sysfs", "sysfs", base / "sys")
    mount("-t", "tmpfs", "tmpfs", base / "pci")
    mount("-t", "tmpfs", "tmpfs", base / "driver")
    (base / "pci/drivers/nvidia/module").mkdir(parents=True)
    (base / "pci/drivers/nvidia/module/version").write_text("580.95.05\n")
    kernel_module = Path("/") / (base / "pci/drivers/nvidia").relative_to(root)
    for address, minor, drm in gpus:
        gpu(base / "pci", base / "driver", model, address, minor, drm, kernel_module)
    (base / "pci/devices").mkdir(exist_ok=True)
    mount("--bind", base / "pci/devices", root / "sys/bus/pci/devices")
    mount("--bind", base / "driver", root / "proc/driver")


def main() -> None:
    wish = json.loads(sys.argv[1])
    lxd_dir = Path(wish["lxd_dir"])
    emulate(Path(wish["emulated"]), wish["gpus"], wish["model"])
    if wish["snap"]:  # LXD from a snap has its device directory in a mount namespace of its own
        (lxd_dir / "devices").mkdir(parents=True, exist_ok=True)
        mount("-t", "tmpfs", "-o", "mode=0711", "tmpfs", lxd_dir / "devices")
    os.execvp("lxd", ["lxd", "--group", "root", "--logfile", str(lxd_dir.parent / "lxd.log")])


if __name__ == "__main__":
    main()
