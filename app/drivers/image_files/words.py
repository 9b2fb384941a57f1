"""What an image says of itself, and the little of it that is kept: part of the program in sieve.py."""

from __future__ import annotations

import errno
import json
import tarfile
from typing import Any

import yaml

from app.drivers.image_files.bounds import RefusedError

MOST = 64 << 10  # bytes of metadata.yaml
_LONGEST = 200  # characters of a value
_KEPT = ("os", "release", "variant", "serial", "description")
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}  # Debian's words for what the kernel calls otherwise


def metadata(text: bytes) -> dict[str, Any]:
    """metadata.yaml as it is."""
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.SafeLoader)):
            raise RefusedError("metadata.yaml refers to itself")
        found = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RefusedError("metadata.yaml is no YAML") from error
    if not isinstance(found, dict):
        raise RefusedError("metadata.yaml says nothing")
    return found


def kept(found: dict[str, Any], machine: str) -> dict[str, Any]:
    """What is kept of it: which processor, which system, of when. No templates, no settings."""
    said = str(found.get("architecture", ""))[:_LONGEST]
    if _MACHINES.get(said, said) != machine:
        raise RefusedError(f"it is for {said or 'no processor'}, and this host is {machine}")
    date = found.get("creation_date")
    properties = found.get("properties")
    values = {key: properties[key] for key in _KEPT if key in properties} if isinstance(properties, dict) else {}
    return {
        "architecture": machine,
        "creation_date": date if isinstance(date, int) and 0 < date < 2**33 else 1,
        "properties": {key: text for key, value in values.items() if (text := _plain(value))},
    }


def head(values: dict[str, Any], size: int) -> bytes:
    """An archive's beginning of exactly `size` bytes: metadata.yaml with these values. JSON is YAML."""
    room = size - 512
    text = json.dumps(values).encode().ljust(room, b"\n")
    if len(text) > room:
        raise RefusedError("what it says of itself is too long")
    entry = tarfile.TarInfo("metadata.yaml")
    entry.size, entry.mode = room, 0o644
    return entry.tobuf(tarfile.USTAR_FORMAT) + text


def trouble(error: OSError) -> str:
    """Why a file could not be read or written."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return "the disk is full: what is looked through is written down beside it, unpacked"
    if error.errno is None:  # tarfile's and gzip's own word
        return "the archive is damaged, or none that Berth reads"
    return f"it cannot be read: {error.strerror}"


def _plain(value: Any) -> str:
    text = value if isinstance(value, str) else str(value) if isinstance(value, int) else ""
    return "".join(sign for sign in text if sign.isprintable())[:_LONGEST]
