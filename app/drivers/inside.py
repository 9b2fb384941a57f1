"""Commands that Berth has run inside an instance, and what is kept of their answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Command:
    """What to run as root in there. The instance may be hostile: it gets `limit` seconds, and `most` bytes of what it
    says (both streams) are taken; whoever goes beyond is ended. What is secret goes by `stdin`, at most 32 KiB."""

    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    stdin: bytes = b""
    limit: float = 20.0
    most: int = 1 << 16


@dataclass(frozen=True)
class Answer:
    """How it ended. `text` is the instance's own, to be shown as such and believed in nothing."""

    status: int
    text: str

    @property
    def well(self) -> bool:
        """Whether it said that it worked."""
        return self.status == 0


Heard = Callable[[str], None]
"""Called with each piece of what a command says, as it comes, and with "" every second while it says nothing. What it
raises ends the command."""


def shell(script: str, *, limit: float = 20.0, stdin: bytes = b"", most: int = 1 << 16, **environment: str) -> Command:
    """A constant script for /bin/sh; everything that varies comes by its environment or `stdin`. `limit` and `most`
    are Command's."""
    return Command(("/bin/sh", "-c", script), environment, stdin, limit, most)
