"""Passwords for the account inside a machine: made here, shown once, kept nowhere. The machine gets a hash."""

from __future__ import annotations

import secrets

from passlib.hash import sha512_crypt

from app.errors import Conflict
from app.language import gettext as _
from app.models import Instance, InstanceStatus, Operation, OperationKind, User
from app.services import operations

# Without what looks or sounds alike: 29 characters, and 18 of them in threes of six: 87 bits.
_LETTERS = "abcdefghjkmnpqrstuvwxyz346789"
_GROUPS, _LENGTH = 3, 6
_ROUNDS = 5000  # the format's own; 87 bits need no slow hash


def generate() -> str:
    """A password to read and to type."""
    return "-".join("".join(secrets.choice(_LETTERS) for _ in range(_LENGTH)) for _ in range(_GROUPS))


def hashed(password: str) -> str:
    """As /etc/shadow holds it ($6$: every Linux can check it)."""
    return str(sha512_crypt.using(rounds=_ROUNDS).hash(password))


def request(actor: User | None, instance: Instance) -> tuple[Operation, str]:
    """Ask for a new password in a machine that runs; the password, which nothing keeps. Raises Conflict."""
    if instance.status != InstanceStatus.RUNNING:
        raise Conflict(
            _("%(name)s does not run.", name=instance.name),
            _("Start it, then its password can be set."),
        )
    password = generate()
    return operations.enqueue(actor, instance, OperationKind.PASSWORD, hash=hashed(password)), password
