"""What a check says, and what it is held against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from app.drivers.base import TAG_PREFIX, GpuInfo
from app.drivers.survey import PoolUse

BAD, WARN, OK = "bad", "warn", "ok"
LEVELS = (BAD, WARN, OK)
_LONGEST = 600  # characters of a text

OWNER = TAG_PREFIX + "owner"  # on what Berth made, or has taken up
_TRUE = {"true", "1", "yes", "on"}  # as LXD reads a switch


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `fix` says what to do when it is not as it should be: a command where possible.

    `bad`: a GPU, a machine or the host is not safe, or does not work. `warn`: advised against, or not to be seen.
    """

    level: str
    what: str
    detail: str
    fix: str = ""

    @property
    def ok(self) -> bool:
        """Whether there is nothing to do."""
        return self.level == OK

    def as_json(self) -> dict[str, str]:
        """For a column or a program: texts of a bounded length that cannot steer a terminal."""
        return {key: printable(value) for key, value in asdict(self).items()}


@dataclass(frozen=True)
class Known:
    """What Berth's database knows of a host. `gpus`: those that may be given away or are in quarantine; `resting`: the
    addresses of those in maintenance. `instances`: by LXD's name. `skew`: seconds by which the clock of the one who
    looks is ahead of the database's; None: not compared. `pools`: those of machines, as the slow look saw them; `full`:
    by name, the machines whose disks are full or nearly so, with the bytes in use and their size in GiB."""

    host: str
    gpus: tuple[GpuInfo, ...] = ()
    resting: frozenset[str] = frozenset()
    instances: frozenset[str] = frozenset()
    skew: float | None = None
    pools: tuple[PoolUse, ...] = ()
    full: Mapping[str, tuple[int, int]] = field(default_factory=dict)


def printable(text: str) -> str:
    """A text that cannot steer a terminal, cut to a bounded length."""
    return "".join(character if character.isprintable() else "?" for character in text[:_LONGEST])


def on(config: Mapping[str, str], key: str, unset: str = "false") -> bool:
    """Whether a switch of LXD's is on; `unset`: what LXD takes for it where it is not set."""
    return config.get(key, unset).lower() in _TRUE
