"""What things may be called."""

from __future__ import annotations

import re

MACHINE_NAME = re.compile(r"[a-z]([a-z0-9-]{0,28}[a-z0-9])?")  # of templates too
RESERVED = frozenset({"new"})  # the address of the page that makes one
RESERVED_PREFIX = "berth-"  # what Berth itself works in


def reserved(name: str) -> bool:
    """Whether no machine may be called so."""
    return name in RESERVED or name.startswith(RESERVED_PREFIX)
