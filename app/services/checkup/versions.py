"""Which LXD lacks what. A table: add a row when LXD mends something that matters here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from app.services.checkup.finding import BAD, OK, WARN, Finding

Version = tuple[int, int, int]

FLOORS: tuple[Version, ...] = ((5, 0, 9), (5, 21, 7), (6, 9, 0))  # of each line that is kept up; Berth advises these
_OLDEST = (5, 0, 0)


@dataclass(frozen=True)
class Lack:
    """Something that LXD got right only in these versions, one for each of its lines. `until`: what to do before."""

    mended: tuple[Version, ...]
    what: str
    reason: str
    until: str


LACKS = (
    Lack(
        ((5, 0, 3), (5, 21, 0), (6, 0, 0)),
        "LXD: gpu id=",
        "a device with id=N hands over every NVIDIA GPU of the host, not one (mended in 5.0.3)",
        "use pci= alone, as Berth does",
    ),
    Lack(
        ((5, 0, 3), (5, 21, 0), (6, 0, 0)),
        "LXD: updates at once",
        "two updates of one machine can both pass LXD's check, and a GPU stays plugged in that LXD forgot (5.0.3)",
        "leave changes of Berth's machines to Berth, which looks again after each",
    ),
    Lack(
        ((5, 0, 8), (5, 21, 6), (6, 9, 0)),
        "LXD: images",
        "an image or backup made by somebody else can take over the host as it is imported (CVE-2026-48749, -48750,"
        " -48752, -23953, -23954, -33897; a distribution may have mended some of it under an older number)",
        "import only images that you made yourself",
    ),
    Lack(
        FLOORS,
        "LXD: images, the last hole",
        "an image or backup made by somebody else can reach files of the host (CVE-2026-66897; 6.9 needs the change"
        " of pull request 18909)",
        "import only images that you made yourself",
    ),
)


def safe_for_images(text: str) -> bool:
    """Whether images of others may be given to this LXD. A version that is no number is a simulated host's."""
    version = parse(text)
    return version is None or not below(version, FLOORS)


def judge(text: str) -> Iterator[Finding]:
    """The version, and what it lacks. One that is no number (a simulated host's) lacks nothing."""
    version = parse(text)
    if version is None:
        yield Finding(OK, "LXD", f"version {text}")
        return
    if version < _OLDEST:
        yield Finding(BAD, "LXD", f"version {text} is older than Berth can drive", _upgrade(version))
        return
    yield Finding(OK, "LXD", f"version {text}")
    for lack in LACKS:
        if below(version, lack.mended):
            fix = f"{_upgrade(version)} Until then: {lack.until}."
            yield Finding(WARN, lack.what, f"{text}: {lack.reason}", fix)


def parse(text: str) -> Version | None:
    """Three numbers, of a text that begins like a version."""
    match = re.match(r"(\d{1,4})\.(\d{1,4})(?:\.(\d{1,4}))?(?!\d)", text)
    return (int(match[1]), int(match[2]), int(match[3] or 0)) if match else None


def below(version: Version, mended: tuple[Version, ...]) -> bool:
    """Whether this version is before the one that mended it: its own line's if that is kept up, else the next one's."""
    for fixed in mended:
        if version[:2] == fixed[:2]:
            return version < fixed
    return version < next((fixed for fixed in mended if fixed > version), (0, 0, 0))


def _upgrade(version: Version) -> str:
    target = next((floor for floor in FLOORS if floor[:2] == version[:2] or floor > version), FLOORS[-1])
    text = ".".join(str(part) for part in target).removesuffix(".0")
    channel = "5.0/stable" if target[:2] == (5, 0) else "5.21/stable" if target[0] == 5 else "latest/stable"
    return f"Upgrade LXD to {text} or newer (from the snap: snap refresh lxd --channel={channel})."
