"""Takes labs down: processes, mounts, loop devices, cgroups, files. A lab's path leads to all of them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
import zlib
from contextlib import suppress
from pathlib import Path

from tests.lab import registry

PATIENCE = 20  # seconds for the kernel to let go of what a killed process held


def environment(directory: Path) -> dict[str, str]:
    """What LXD's programs need to find this lab, and to leave the caller's home alone."""
    own = {"LXD_DIR": str(directory / "lxd"), "LXD_CONF": str(directory / "conf")}
    # While it packs an image LXD 5.0.2 asks who its files' groups are. Where systemd answers that (libnss), one of them
    # closes the other's descriptor now and then, and LXD aborts: systemd is not asked.
    return {**os.environ, **own, "SYSTEMD_BYPASS_USERDB": "1"}


def bridge_name(directory: Path) -> str:
    """The bridge of the lab in `directory`: one name for each, of at most 15 letters."""
    return f"bb{zlib.crc32(str(directory).encode()):08x}"


def workstation_name(directory: Path) -> str:
    """What the workstation in `directory` is called: its cgroups, its cable and the rules for it."""
    return f"bw{zlib.crc32(str(directory).encode()):08x}"


def down(directory: Path | str) -> None:
    """Take down the lab in `directory`, in whatever state it is."""
    directory = Path(directory).absolute()
    record = registry.find(directory)
    env = environment(directory)
    if record and record.daemon and alive(record.daemon):
        with suppress(subprocess.TimeoutExpired):  # what does not stop is killed below
            subprocess.run(["lxc", "stop", "--all", "--force"], env=env, capture_output=True, check=False, timeout=30)
            subprocess.run(["lxd", "shutdown", "--timeout", "5"], env=env, capture_output=True, check=False, timeout=15)
        deadline = time.monotonic() + 5
        while alive(record.daemon) and time.monotonic() < deadline:
            time.sleep(0.05)
    remove(directory)
    if record:
        registry.leave(record)


def sweep() -> list[str]:
    """Take down the labs whose program is gone; returns their directories."""
    with registry.locked("sweeping"):  # of several test runs beside each other, one
        orphans = [record.directory for record in registry.records() if record.orphaned]
        for directory in orphans:
            down(directory)
    return orphans


def remove(directory: Path) -> None:
    """Remove every trace of the lab in `directory`."""
    lxd_dir = directory / "lxd"
    names = {path.name for kind in ("containers", "devices") for path in _entries(lxd_dir / kind)}
    names |= {name for pid in _pids() if (name := _monitored(pid, lxd_dir))}
    _kill(lxd_dir)
    end_processes(names)
    for line in reversed(Path("/proc/mounts").read_text().splitlines()):
        point = line.split()[1]
        if Path(point).is_relative_to(directory):
            subprocess.run(["umount", "--lazy", point], check=False, capture_output=True)
    for disk in _entries(lxd_dir / "disks"):
        _free(disk)
    for name in names:
        _remove_cgroups(name)
    _remove_bridge(bridge_name(directory))
    if (directory / "rootfs").exists():
        remove_workstation(directory)
    for name in ("lxd", "emulated", "conf"):
        shutil.rmtree(directory / name, ignore_errors=True)
    for name in ("lxd.log", "lxd.out"):
        (directory / name).unlink(missing_ok=True)
    with suppress(OSError):
        directory.rmdir()


def remove_workstation(directory: Path) -> None:
    """What a workstation leaves behind; its processes end with its first one, and with them its mounts and network."""
    name, trees = workstation_name(directory), Path("/sys/fs/cgroup")
    for group in [*trees.glob(name), *trees.glob(f"*/{name}")]:
        end_in(group)
        deadline = time.monotonic() + 10
        while group.exists() and time.monotonic() < deadline:
            for folder, _, _ in os.walk(group, topdown=False):
                with suppress(OSError):
                    Path(folder).rmdir()
            time.sleep(0.05)
    subprocess.run(["nft", "delete", "table", "ip", name], check=False, capture_output=True)
    shutil.rmtree(directory / "rootfs", ignore_errors=True)
    (directory / "console").unlink(missing_ok=True)


def end_processes(names: set[str]) -> None:
    """Kill all that is in these containers. Who was frozen by its own root does not end with its container: it is let
    run, and is gone."""
    for group in (group for name in names for group in Path("/sys/fs/cgroup").glob(f"*/lxc.payload.{name}")):
        end_in(group)


def end_in(group: Path) -> None:
    """Kill all that is in a cgroup and in those within."""
    for folder in [Path(path) for path, _, _ in os.walk(group)]:
        with suppress(OSError):
            (folder / "freezer.state").write_text("THAWED")
        with suppress(OSError):
            for line in (folder / "cgroup.procs").read_text().split():
                os.kill(int(line), signal.SIGKILL)


def alive(pid: int) -> bool:
    """Whether the process runs; a dead child that nobody waited for does not."""
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] != b"Z"
    except OSError:
        return False


def _kill(lxd_dir: Path) -> None:
    """Containers' first processes before their monitors, which would restart nothing but tell LXD."""
    monitors = {pid for pid in _pids() if _monitored(pid, lxd_dir)}
    inits = {pid for pid in _pids() if _parent(pid) in monitors}
    rest = {pid for pid in _pids() if _belongs(pid, lxd_dir)}
    for group in (inits, monitors | rest):
        for pid in group - {os.getpid(), os.getppid()}:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + PATIENCE
        while any(alive(pid) for pid in group) and time.monotonic() < deadline:
            time.sleep(0.05)


def _free(disk: Path) -> None:
    """The loop devices of a pool. Its file system is unmounted once the last process that saw it is gone, and that by
    the kernel in its own time, 0.65 s later on a busy disk; until then a detached device is only marked to go."""
    for loop in _loops(disk):
        subprocess.run(["losetup", "--detach", loop], check=False, capture_output=True)
    deadline = time.monotonic() + PATIENCE
    while _loops(disk) and time.monotonic() < deadline:
        time.sleep(0.02)


def _loops(disk: Path) -> list[str]:
    listing = ["losetup", "--noheadings", "--output", "NAME", "--associated", disk]
    return subprocess.run(listing, check=False, capture_output=True, text=True).stdout.split()


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 (thousands of Paths)


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def _monitored(pid: int, lxd_dir: Path) -> str:
    """The container that this process watches over for this LXD, if that is what it is."""
    text = _read(pid, "cmdline").rstrip(b"\0").decode(errors="replace")
    head = f"[lxc monitor] {lxd_dir}/containers "
    return text.removeprefix(head) if text.startswith(head) else ""


def _belongs(pid: int, lxd_dir: Path) -> bool:
    """LXD itself, its helpers (forkproxy, monitors) and its dnsmasq; not a shell that has LXD_DIR set."""
    try:
        program = Path(f"/proc/{pid}/exe").readlink().name.removesuffix(" (deleted)")
    except OSError:
        return False
    if program not in {"lxd", "dnsmasq"}:
        return False
    environment = f"LXD_DIR={lxd_dir}".encode() in _read(pid, "environ").split(b"\0")
    return environment or f"{lxd_dir}/".encode() in _read(pid, "cmdline")


def _parent(pid: int) -> int:
    fields = _read(pid, "stat").rpartition(b")")[2].split()
    return int(fields[1]) if fields else 0


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _remove_bridge(name: str) -> None:
    """The bridge and LXD's rules for it: an LXD that ends in peace takes both along."""
    if not Path("/sys/class/net", name).exists():
        return
    subprocess.run(["ip", "link", "delete", name], check=False, capture_output=True)
    for hook in ("pstrt", "fwd", "in", "out"):
        subprocess.run(["nft", "delete", "chain", "inet", "lxd", f"{hook}.{name}"], check=False, capture_output=True)


def _remove_cgroups(name: str) -> None:
    """A killed process stays in its group until init has reaped it, hence the patience."""
    groups = [group for kind in ("payload", "monitor") for group in Path("/sys/fs/cgroup").glob(f"*/lxc.{kind}.{name}")]
    deadline = time.monotonic() + PATIENCE
    while groups and time.monotonic() < deadline:
        for group in groups:
            for folder, _, _ in os.walk(group, topdown=False):
                with suppress(OSError):
                    Path(folder).rmdir()
        groups = [group for group in groups if group.exists()]
        if groups:
            time.sleep(0.05)
