"""Reads the archive of an image and writes another that holds a root file system and a few plain words, no more.

Whoever made the archive decides what is in it, and LXD reads images as root. So this runs as a program of its own, as
nobody, with limits; it unpacks nothing, and knows two open files by their numbers. Arguments: one JSON object. It says
how far it is, and at last what it found, as a JSON object on each line.
"""

from __future__ import annotations

import json
import os
import sys
import tarfile
from typing import Any, cast

from app.drivers.image_files import bounds, words
from app.drivers.image_files.bounds import RefusedError

MOST_ENTRIES = 1_000_000
LONGEST = 4096  # bytes of a name or of where a link leads
HEAD = 4096  # bytes that are kept free at the beginning for our own metadata.yaml
CAPABILITY = "SCHILY.xattr.security.capability"  # what lets ping send; all other extended attributes are left out
_REGULAR = {tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE}


class Entry(tarfile.TarInfo):
    """One whose header is damaged is an error wherever it stands: tarfile takes it for the end of the archive."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Any:
        """The next entry."""
        try:
            found = super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise RefusedError("the archive is damaged or incomplete") from error
        if found.size < 0:
            raise RefusedError("the archive is damaged: a file in it is smaller than nothing")
        return found


class Sieve:
    """Takes one entry after the other, and keeps those that belong into a root file system."""

    def __init__(self, source: tarfile.TarFile, target: tarfile.TarFile) -> None:
        self.source, self.target = source, target
        self.seen: dict[str, str] = {}  # path: d(irectory), f(ile) or o(ther)
        self.metadata: dict[str, Any] | None = None
        self.entries = self.left_out = 0

    def take(self, entry: tarfile.TarInfo) -> None:
        """Keep it, leave it out, or refuse the whole image."""
        self.entries += 1
        if self.entries > MOST_ENTRIES:
            raise RefusedError(f"it holds more than {MOST_ENTRIES} files")
        parts = _parts(entry.name)
        if not parts:
            return
        top, path = parts[0], "/".join(parts)
        if top == "metadata.yaml" and len(parts) == 1:
            self._read_metadata(entry)
        elif top == "templates":
            if not (entry.isdir() or entry.type in _REGULAR):
                raise RefusedError(f"{path} is neither a file nor a directory")
            self.left_out += 1  # LXD would fill them in as root, into any file of the machine
        elif top == "rootfs":
            self._keep(entry, path, inside=len(parts) > 1)
        elif top == "rootfs.img":
            raise RefusedError("it is the image of a virtual machine; Berth makes containers")
        else:
            raise RefusedError(f"{top[:80]} does not belong into an image: there are rootfs/ and metadata.yaml")

    def _read_metadata(self, entry: tarfile.TarInfo) -> None:
        if entry.type not in _REGULAR:
            raise RefusedError("metadata.yaml is no file")
        if self.metadata is not None:
            raise RefusedError("it has more than one metadata.yaml")
        if entry.size > words.MOST:
            raise RefusedError("metadata.yaml is too large")
        found = self.source.extractfile(entry)
        assert found is not None
        self.metadata = words.metadata(found.read())

    def _keep(self, entry: tarfile.TarInfo, path: str, *, inside: bool) -> None:
        if not inside and not entry.isdir():
            raise RefusedError("rootfs is no directory")
        if (entry.ischr() or entry.isblk() or entry.isfifo()) and path.startswith("rootfs/dev/"):
            self.left_out += 1  # every machine has its own
            return
        if entry.ischr() or entry.isblk():
            raise RefusedError(f"{path[:200]} is a device")
        kind = "d" if entry.isdir() else "f" if entry.type in _REGULAR else "o"
        if kind == "o" and not (entry.issym() or entry.islnk() or entry.isfifo()):
            raise RefusedError(f"{path[:200]} is of a kind that Berth does not know")
        self._place(path, "f" if entry.islnk() else kind)
        clean = _clean(entry, path)
        if entry.islnk():
            clean.linkname = "/".join(_parts(entry.linkname))
            if self.seen.get(clean.linkname) != "f" or clean.linkname == path:
                raise RefusedError(f"{path[:200]} is a second name of what is not in the image before it")
        self.target.addfile(clean, self.source.extractfile(entry) if kind == "f" else None)

    def _place(self, path: str, kind: str) -> None:
        """Every name once, and each in a directory: what is unpacked through a link lands where the link leads."""
        known = self.seen.get(path)
        if known is not None and (known, kind) != ("d", "d"):
            raise RefusedError(f"{path[:200]} is in it twice")
        self.seen[path] = kind
        while "/" in path:
            path = path.rpartition("/")[0]
            above = self.seen.setdefault(path, "d")
            if above != "d":
                raise RefusedError(f"{path[:200]} is no directory, and there are files below it")


def _parts(name: str) -> list[str]:
    if name.startswith("/"):
        raise RefusedError(f"{name[:200]} is an absolute path")
    parts = [part for part in name.split("/") if part not in {"", "."}]
    if ".." in parts:
        raise RefusedError(f"{name[:200]} leads out of the image")
    if len(os.fsencode(name)) > LONGEST or "\0" in name:
        raise RefusedError("a name in it is too long or not a name")
    return parts


def _clean(entry: tarfile.TarInfo, path: str) -> tarfile.TarInfo:
    """The entry anew, with nothing that was not looked at."""
    for number in (entry.uid, entry.gid):
        if not 0 <= number < 65536:
            raise RefusedError(f"{path[:200]} belongs to {number}: machines have the numbers up to 65535")
    if entry.issym() and not 0 < len(os.fsencode(entry.linkname)) <= LONGEST:
        raise RefusedError(f"{path[:200]} leads nowhere")
    clean = tarfile.TarInfo(path)
    clean.type = tarfile.REGTYPE if entry.type in _REGULAR else entry.type
    clean.mode, clean.uid, clean.gid = entry.mode & 0o7777, entry.uid, entry.gid
    clean.mtime = min(max(int(entry.mtime), 0), 2**33)
    clean.size = entry.size if entry.type in _REGULAR else 0
    clean.linkname = entry.linkname if entry.issym() else ""
    value = entry.pax_headers.get(CAPABILITY, "")
    clean.pax_headers = {CAPABILITY: value} if 0 < len(value) <= 24 else {}
    return clean


def sift(source: Any, target: Any, size: int, wish: dict[str, Any]) -> dict[str, Any]:
    """Write what is kept of the `source`, an archive of `size` bytes, to the `target`; what was found."""
    raw = bounds.Hashed(source, lambda done: _say(percent=done * 100 // max(size, 1)))
    with bounds.unpacked(raw, size) as plain:
        target.write(words.head({}, HEAD))
        with (
            tarfile.open(fileobj=cast("Any", plain), mode="r|", tarinfo=Entry) as before,
            tarfile.open(fileobj=target, mode="w|", format=tarfile.PAX_FORMAT) as after,
        ):
            sieve = Sieve(before, after)
            while entry := before.next():
                if entry.sparse is not None:
                    plain.add(entry.size)  # the holes are made here, however little of the file is packed
                sieve.take(entry)
                before.members.clear()  # type: ignore[attr-defined]
                after.members.clear()  # type: ignore[attr-defined]
    if sieve.metadata is None:
        raise RefusedError("it has no metadata.yaml: that is no image of LXD's")
    if sieve.seen.get("rootfs") != "d" or len(sieve.seen) < 2:
        raise RefusedError("it has no rootfs/")
    kept = words.kept(sieve.metadata, wish["machine"])
    target.flush()
    os.pwrite(target.fileno(), words.head(kept | {"properties": kept["properties"] | wish["properties"]}, HEAD), 0)
    found = {"sha256": raw.hexdigest(), "entries": sieve.entries, "left_out": sieve.left_out, "bytes": plain.count}
    return found | {"description": kept["properties"].get("description", "")}


def judge(source: Any, target: Any, size: int, wish: dict[str, Any]) -> dict[str, Any]:
    """What was `found` in the archive of `size` bytes, or why it is `refused`."""
    try:
        return {"found": sift(source, target, size, wish)}
    except RefusedError as error:
        return {"refused": str(error)}
    except OSError as error:
        return {"refused": words.trouble(error)}
    except (tarfile.TarError, EOFError, ValueError, MemoryError, RecursionError, OverflowError, *bounds.DAMAGE):
        return {"refused": "the archive is damaged, or none that Berth reads"}


def _say(**what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Do what the argument says."""
    wish = json.loads(sys.argv[1])
    with os.fdopen(wish["source"], "rb") as source, os.fdopen(wish["target"], "wb") as target:
        size = os.fstat(source.fileno()).st_size
        try:
            bounds.confine(wish["nobody"])
        except PermissionError:
            _say(refused="the agent may not become nobody to read it; with CAP_SETUID and CAP_SETGID it may")
            return
        _say(**judge(source, target, size, wish))


if __name__ == "__main__":
    main()
