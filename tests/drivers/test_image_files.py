"""Image files as somebody hostile would make them: what is refused, what is left out, and that nothing stays behind."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import pytest

from app.drivers.base import GiveUp
from app.drivers.image_files import ImageFiles, bounds, sieve

MACHINE = os.uname().machine
WORDS = f"architecture: {MACHINE}\ncreation_date: 5\nproperties: {{os: Debian, description: Mine, x: y}}\n"
CAPABILITY = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
Entry = tuple[str, dict[str, Any]]


def entry(name: str, content: bytes | str = b"", **values: Any) -> Entry:
    data = content.encode() if isinstance(content, str) else content
    return name, {"type": tarfile.REGTYPE, "mode": 0o644, **values, "data": data}


def folder(name: str) -> Entry:
    return entry(name, type=tarfile.DIRTYPE, mode=0o755)


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> Entry:
    return entry(name, type=kind, linkname=target)


GOOD = (entry("metadata.yaml", WORDS), folder("rootfs"), folder("rootfs/etc"), entry("rootfs/etc/hostname", "x"))


def archive(*entries: Entry) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, values in entries:
            info = tarfile.TarInfo(name)
            data = values["data"]
            for key, value in values.items():
                if key != "data":
                    setattr(info, key, value)
            info.size = values.get("size", len(data))
            tar.addfile(info, io.BytesIO(data) if data else None)
    return raw.getvalue()


@pytest.fixture
def shelf(tmp_path: Path) -> ImageFiles:
    found = ImageFiles(tmp_path / "images")
    assert found.names() == []
    return found


def put(shelf: ImageFiles, content: bytes, name: str = "x.tar") -> Path:
    path = shelf.directory / name
    path.write_bytes(content)
    path.chmod(0o644)
    return path


def kept(shelf: ImageFiles, content: bytes) -> dict[str, tarfile.TarInfo]:
    """The entries of what is left of an archive."""
    put(shelf, content)
    with shelf.sifted("x.tar", 7, "", lambda _percent: None) as found, tarfile.open(found.path) as tar:
        return {info.name: info for info in tar.getmembers()}


def refused(shelf: ImageFiles, content: bytes) -> str:
    """Why the program that runs as nobody takes no such file."""
    put(shelf, content)
    with pytest.raises(GiveUp) as error, shelf.sifted("x.tar", 7, "", lambda _percent: None):
        pytest.fail("it was taken")
    assert {path.name for path in shelf.directory.iterdir()} == {"x.tar"}, "nothing stays behind"
    return error.value.detail


def judged(content: bytes) -> str:
    """The same, in this process: a program takes its time to start."""
    with TemporaryFile() as target:
        wish = {"machine": MACHINE, "properties": {}}
        return str(sieve.judge(io.BytesIO(content), target, len(content), wish).get("refused", ""))


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress, bz2.compress])
def test_packed_in_these_ways(pack: Callable[[bytes], bytes]) -> None:
    assert judged(pack(archive(*GOOD))) == ""


def test_what_is_kept(shelf: ImageFiles) -> None:
    content = gzip.compress(
        archive(
            folder("./"), entry("./rootfs/etc/motd", "hello", uid=5, gid=65535, mode=0o104755, uname="root"),
            *GOOD, link("rootfs/etc/mtab", "/proc/mounts"),
            link("rootfs/etc/name", "rootfs/etc/hostname", tarfile.LNKTYPE),
            folder("rootfs/dev"), entry("rootfs/dev/null", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
            entry("rootfs/run/pipe", type=tarfile.FIFOTYPE),
            entry("rootfs/bin/ping", "p", pax_headers={sieve.CAPABILITY: CAPABILITY, "SCHILY.xattr.trusted.x": "1"}),
            folder("templates"), entry("templates/hosts.tpl", "{{ evil }}"),
        )
    )  # fmt: skip
    path = put(shelf, content)
    told: list[int] = []
    with shelf.sifted("x.tar", 7, hashlib.sha256(content).hexdigest(), told.append) as found:
        with tarfile.open(found.path) as tar:
            members = {info.name: info for info in tar.getmembers()}
            words = tar.extractfile("metadata.yaml").read().decode()  # type: ignore[union-attr]
            assert tar.extractfile("rootfs/etc/motd").read() == b"hello"  # type: ignore[union-attr]
        assert (found.sha256, found.left_out) == (hashlib.sha256(content).hexdigest(), 3)
        assert found.path.stat().st_mode & 0o777 == 0o600
    assert {path} == set(shelf.directory.iterdir())
    assert set(members) == {
        "metadata.yaml", "rootfs", "rootfs/etc", "rootfs/etc/motd", "rootfs/etc/hostname", "rootfs/etc/mtab",
        "rootfs/etc/name", "rootfs/dev", "rootfs/run/pipe", "rootfs/bin/ping",
    }  # fmt: skip
    motd = members["rootfs/etc/motd"]
    assert (motd.uid, motd.gid, motd.mode, motd.uname) == (5, 65535, 0o4755, "")
    assert members["rootfs/bin/ping"].pax_headers == {sieve.CAPABILITY: CAPABILITY}
    assert members["rootfs/etc/name"].linkname == "rootfs/etc/hostname"
    assert '"os": "Debian"' in words
    assert '"berth.template": "7"' in words
    assert '"x"' not in words


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ((*GOOD, entry("/etc/shadow", "x")), "/etc/shadow is an absolute path"),
        ((*GOOD, entry("rootfs/../../etc/shadow", "x")), "leads out of the image"),
        ((*GOOD, link("rootfs", "/")), "rootfs is no directory"),
        ((GOOD[0], link("rootfs", "/")), "rootfs is no directory"),
        ((GOOD[0], link("rootfs", "/etc", tarfile.LNKTYPE)), "rootfs is no directory"),
        ((link("metadata.yaml", "/etc/shadow"), *GOOD[1:]), "metadata.yaml is no file"),
        ((link("metadata.yaml", "/etc/shadow", tarfile.LNKTYPE), *GOOD[1:]), "metadata.yaml is no file"),
        ((*GOOD, GOOD[0]), "more than one metadata.yaml"),
        ((entry("metadata.yaml", b"x" * 70000), *GOOD[1:]), "metadata.yaml is too large"),
        ((entry("metadata.yaml", "a: &a 1\nb: *a\n"), *GOOD[1:]), "refers to itself"),
        ((entry("metadata.yaml", "a: [1\n"), *GOOD[1:]), "is no YAML"),
        ((entry("metadata.yaml", "!!python/object/apply:os.system [id]"), *GOOD[1:]), "is no YAML"),
        ((entry("metadata.yaml", "just text"), *GOOD[1:]), "says nothing"),
        ((entry("metadata.yaml", "architecture: riscv64"), *GOOD[1:]), f"for riscv64, and this host is {MACHINE}"),
        ((*GOOD, link("templates", "/etc")), "templates is neither a file nor a directory"),
        ((*GOOD, link("templates/x.tpl", "/etc/shadow")), "templates/x.tpl is neither"),
        ((*GOOD, entry("templates/x.tpl", type=tarfile.CHRTYPE)), "templates/x.tpl is neither"),
        ((*GOOD, entry("backup.yaml", "x")), "backup.yaml does not belong into an image"),
        ((*GOOD, link("exec-output", "/etc")), "exec-output does not belong"),
        ((*GOOD, entry("rootfs.img", "x")), "virtual machine"),
        ((*GOOD, entry("rootfs/sda", type=tarfile.BLKTYPE, devmajor=8)), "rootfs/sda is a device"),
        ((*GOOD, entry("rootfs/dev", type=tarfile.CHRTYPE, devmajor=1)), "rootfs/dev is a device"),
        ((*GOOD, entry("rootfs/x", type=b"Z")), "is of a kind that Berth does not know"),
        ((*GOOD, link("rootfs/x", "/"), entry("rootfs/x/etc/cron.d/y", "x")), "rootfs/x is no directory"),
        ((*GOOD, entry("rootfs/a/b", "x"), link("rootfs/a", "/etc")), "rootfs/a is in it twice"),
        ((*GOOD, link("rootfs/etc/hostname", "/etc/shadow")), "is in it twice"),
        ((*GOOD, link("rootfs/y", "/etc/shadow", tarfile.LNKTYPE)), "/etc/shadow is an absolute path"),
        ((*GOOD, link("rootfs/y", "metadata.yaml", tarfile.LNKTYPE)), "a second name of what is not in the image"),
        ((*GOOD, link("rootfs/l", "/etc"), link("rootfs/y", "rootfs/l", tarfile.LNKTYPE)), "a second name"),
        ((*GOOD, entry("rootfs/z", "x", uid=100000)), "belongs to 100000"),
        ((*GOOD, entry("rootfs/z", "x", gid=-1)), "belongs to -1"),
        ((*GOOD, link("rootfs/z", "")), "leads nowhere"),
        ((*GOOD, entry("rootfs/" + "n" * 5000, "x")), "too long"),
        (GOOD[1:], "no metadata.yaml"),
        (GOOD[:1], "no rootfs/"),
    ],
)  # fmt: skip
def test_what_is_refused(entries: tuple[Entry, ...], words: str) -> None:
    assert words in judged(archive(*entries))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "damaged"),
        (os.urandom(4096), "damaged"),
        (archive(*GOOD)[:1600], "damaged or incomplete"),
        (gzip.compress(archive(*GOOD))[:-40], "damaged"),
        (lzma.compress(archive(*GOOD))[:-40], "damaged"),
        (archive(*GOOD, entry("rootfs/x", "y" * 2000))[:-11000], "damaged"),
        (b"hsqs" + bytes(600), "a squashfs"),
        (b"\x28\xb5\x2f\xfd" + bytes(600), "zstd"),
        (gzip.compress(bytes(100 << 10)), "no metadata.yaml"),
    ],
)
def test_what_is_no_archive(content: bytes, words: str) -> None:
    assert words in judged(content)


def test_the_program_refuses_a_bomb_and_one_file_of_a_terabyte(shelf: ImageFiles) -> None:
    bomb = gzip.compress(archive(*GOOD, entry("rootfs/zeros", bytes(70 << 20))), 1)
    assert "unpacked it is larger than 64 MiB" in refused(shelf, bomb)
    with tarfile.open(fileobj=io.BytesIO(archive(*GOOD))) as tar:
        cut = tar.getmembers()[-1].offset
    large = tarfile.TarInfo("rootfs/large")
    large.size = 1 << 40
    assert "damaged" in refused(shelf, archive(*GOOD)[:cut] + large.tobuf(tarfile.GNU_FORMAT) + bytes(5000))


def test_a_file_of_holes_counts_as_large_as_it_would_be(shelf: ImageFiles) -> None:
    """The holes are packed as nothing at all: the program that unpacks them makes them."""
    with tarfile.open(fileobj=io.BytesIO(archive(*GOOD))) as tar:
        cut = tar.getmembers()[-1].offset

    def holed(size: bytes) -> bytes:
        head = bytearray(tarfile.TarInfo("rootfs/holes").tobuf(tarfile.GNU_FORMAT))
        head[156:157], head[386:398], head[398:410] = tarfile.GNUTYPE_SPARSE, b"00000000000\0", b"00000000000\0"
        head[483:495] = size
        head[148:156] = b" " * 8
        head[148:156] = b"%06o\0 " % sum(head)
        return archive(*GOOD)[:cut] + bytes(head) + bytes(1024)

    terabyte = holed(b"\x80" + (1 << 40).to_bytes(11, "big"))
    with TemporaryFile() as target:
        wish = {"machine": MACHINE, "properties": {}}
        why = sieve.judge(io.BytesIO(terabyte), target, len(terabyte), wish)["refused"]
        assert "unpacked it is larger than 64 MiB" in why
        assert os.fstat(target.fileno()).st_size < 1 << 20
    assert "unpacked it is larger than 64 MiB" in refused(shelf, terabyte)
    assert "smaller than nothing" in judged(holed(b"\xff" + (-(1 << 40)).to_bytes(11, "big", signed=True)))
    members = kept(shelf, holed(b"00000200000\0"))
    assert (members["rootfs/holes"].size, members["rootfs/holes"].type) == (1 << 16, tarfile.REGTYPE)


def test_no_more_files_than_may_be(shelf: ImageFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sieve, "MOST_ENTRIES", 4)
    with (
        tarfile.open(fileobj=io.BytesIO(archive(*GOOD))) as tar,
        tarfile.open(fileobj=io.BytesIO(), mode="w") as target,
    ):
        taken = sieve.Sieve(tar, target)
        for member in tar.getmembers():
            taken.take(member)
        with pytest.raises(bounds.RefusedError, match="more than 4 files"):
            taken.take(member)


def test_another_file_than_was_asked_for(shelf: ImageFiles) -> None:
    put(shelf, archive(*GOOD))
    with pytest.raises(GiveUp, match="its SHA-256 is"), shelf.sifted("x.tar", 7, "0" * 64, lambda _percent: None):
        pytest.fail("it was taken")
    assert shelf.names() == ["x.tar"]


def test_only_files_that_nobody_else_can_write(shelf: ImageFiles, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(archive(*GOOD))
    (shelf.directory / "link.tar").symlink_to(secret)
    put(shelf, archive(*GOOD), "open.tar").chmod(0o666)
    os.mkfifo(shelf.directory / "pipe.tar")
    (shelf.directory / "folder.tar").mkdir()
    names = {
        "link.tar": "no such file",
        "none.tar": "no such file",
        "open.tar": "others than root can write",
        "pipe.tar": "no plain file",
        "folder.tar": "no plain file",
        "../secret": "no name of a file",
        ".berth-7.tar": "no name of a file",
    }
    for name, words in names.items():
        with pytest.raises(GiveUp, match=words), shelf.sifted(name, 7, "", lambda _percent: None):
            pytest.fail(f"{name} was taken")
    assert shelf.names() == ["open.tar"]
    shelf.directory.chmod(0o777)
    put(shelf, archive(*GOOD))
    with pytest.raises(GiveUp, match="others than root"), shelf.sifted("x.tar", 7, "", lambda _percent: None):
        pytest.fail("it was taken")
    assert shelf.names() == []


def test_what_a_killed_try_left_goes(shelf: ImageFiles) -> None:
    (shelf.directory / ".berth-7.tar").write_bytes(b"half")
    (shelf.directory / ".berth-8.tar").write_bytes(b"another's")
    kept(shelf, archive(*GOOD))
    assert {path.name for path in shelf.directory.iterdir()} == {".berth-8.tar", "x.tar"}
