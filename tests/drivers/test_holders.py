from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from app.drivers.base import Node
from app.drivers.holders.nodes import (
    CannotLookError,
    HostNode,
    Mount,
    devices_dir,
    host_nodes,
    mounted_nodes,
    mounts,
    start_time,
    verdict,
)
from tests.require import need

GPU = "gpu-0000-01-00-0"
NODE = "unix.gpu--0000--01--00--0.dev-nvidia7"
ROOT = f"/var/lib/lxd/devices/t1/{NODE}"


def fake_process(proc: Path, pid: int, *, mountinfo: bytes = b"", comm: bytes = b"systemd", start: int = 4711) -> Path:
    folder = proc / str(pid)
    folder.mkdir(parents=True)
    fields = [b"S", *[b"0"] * 18, str(start).encode(), b"99"]
    (folder / "stat").write_bytes(b"%d (%b) " % (pid, comm) + b" ".join(fields) + b"\n")
    (folder / "mountinfo").write_bytes(mountinfo)
    return folder


def line(root: str, point: str) -> bytes:
    escaped = [text.replace("\\", "\\134").replace(" ", "\\040").replace("\n", "\\012") for text in (root, point)]
    return f"89 104 254:0 {escaped[0]} {escaped[1]} rw,relatime shared:43 - ext4 /dev/vda rw\n".encode()


@pytest.mark.parametrize("comm", [b"systemd", b") R 1 1\n(", b"a b c d e f g", b"))))", b"\xff\xfe"])
def test_the_start_time_is_found_behind_any_name(tmp_path: Path, comm: bytes) -> None:
    fake_process(tmp_path, 10, comm=comm, start=123456)
    assert start_time(10, tmp_path) == 123456


def test_a_process_that_is_gone_has_no_start_time(tmp_path: Path) -> None:
    assert start_time(10, tmp_path) is None


def test_this_process_has_the_start_time_the_kernel_says() -> None:
    assert start_time(os.getpid()) == start_time(os.getpid())
    assert (start_time(os.getpid()) or 0) > (start_time(1) or 0)


def test_mounts_are_read_with_their_escapes_undone(tmp_path: Path) -> None:
    odd = "/mnt/with space\\and\nnewline"
    fake_process(tmp_path, 10, mountinfo=line(ROOT, "/dev/nvidia7") + line("/", odd) + b"short line\n\n")
    assert mounts(10, tmp_path) == (Mount(ROOT, "/dev/nvidia7"), Mount("/", odd))


def test_a_mountinfo_of_any_bytes_is_data(tmp_path: Path) -> None:
    fake_process(tmp_path, 10, mountinfo=b"1 2 3:4 /\xff\\999\\04 /x\\040y rw - ext4 x rw\n")
    assert mounts(10, tmp_path)[0].point == "/x y"


def test_a_huge_mountinfo_cannot_be_looked_at(tmp_path: Path) -> None:
    fake_process(tmp_path, 10, mountinfo=line("/", "/x") * 1000)
    with pytest.raises(CannotLookError, match="too long"):
        mounts(10, tmp_path, limit=1000)


def test_a_vanished_or_empty_process_cannot_be_looked_at(tmp_path: Path) -> None:
    fake_process(tmp_path, 10)
    with pytest.raises(CannotLookError, match="empty"):
        mounts(10, tmp_path)
    with pytest.raises(CannotLookError):
        mounts(11, tmp_path)


def test_mounted_nodes_are_those_lxd_made_for_this_instance() -> None:
    seen = (
        Mount(ROOT, "/dev/nvidia7"),
        Mount(ROOT + "//deleted", "/root/keep"),
        Mount(ROOT.replace("/t1/", "/t2/"), "/dev/nvidia1"),
        Mount("/var/lib/lxd/devices/t1/unix.gpu--0000--02--00--0.dev-nvidiactl", "/dev/nvidiactl"),
        Mount("/home/" + NODE, "/dev/nvidia9"),
        Mount("/", "/"),
    )
    assert mounted_nodes("t1", seen) == {GPU: {"/dev/nvidia7", "/root/keep"}}


def test_a_node_is_present_only_if_made_and_mounted_in_its_place() -> None:
    made = frozenset({HostNode(GPU, 7)})
    assert verdict(GPU, made, {GPU: {"/dev/nvidia7"}}) == Node.PRESENT
    assert verdict(GPU, frozenset(), {}) == Node.ABSENT
    assert verdict("gpu-0000-02-00-0", made, {GPU: {"/dev/nvidia7"}}) == Node.ABSENT
    assert verdict(GPU, made, {}) == Node.UNKNOWN
    assert verdict(GPU, made, {GPU: {"/root/keep"}}) == Node.UNKNOWN
    assert verdict(GPU, frozenset(), {GPU: {"/root/keep"}}) == Node.UNKNOWN


def test_only_genuine_nodes_count(tmp_path: Path) -> None:
    need("root", os.geteuid() == 0, "device nodes can only be made by root")
    folder = tmp_path / "t1"
    folder.mkdir()
    os.mknod(folder / NODE, stat.S_IFCHR | 0o600, os.makedev(195, 7))
    os.mknod(folder / NODE.replace("nvidia7", "nvidia8"), stat.S_IFCHR | 0o600, os.makedev(195, 9))
    os.mknod(folder / NODE.replace("nvidia7", "nvidiactl"), stat.S_IFCHR | 0o600, os.makedev(195, 255))
    (folder / NODE.replace("nvidia7", "nvidia10")).symlink_to(folder / NODE)
    (folder / NODE.replace("nvidia7", "nvidia11")).write_text("a file")
    (folder / "unix.my--gpu.x.dev-nvidia12").symlink_to("/nonexistent")
    assert host_nodes(tmp_path, "t1") == {HostNode(GPU, 7)}


def test_an_instance_without_a_device_directory_has_no_nodes(tmp_path: Path) -> None:
    assert host_nodes(tmp_path, "t1") == frozenset()


def test_a_linked_device_directory_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "t1").symlink_to(tmp_path / "real")
    with pytest.raises(CannotLookError):
        host_nodes(tmp_path, "t1")


def test_the_device_directory_is_taken_from_the_daemons_own_view(tmp_path: Path) -> None:
    inside = tmp_path / "10" / "root" / "var/lib/lxd/devices"
    inside.mkdir(parents=True)
    assert devices_dir(10, Path("/var/lib/lxd"), tmp_path) == inside
    with pytest.raises(CannotLookError):  # another pid namespace, say: nothing there is not "no devices"
        devices_dir(11, Path("/var/lib/lxd"), tmp_path)
