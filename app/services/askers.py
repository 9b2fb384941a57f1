"""Who asks for GPUs, and what all that they ask is held against: read once, however much they are offered."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select

from app.extensions import db
from app.models import Instance, User
from app.services import payers, quota
from app.services.rules import classes
from app.services.rules.terms import Rules


@dataclass(frozen=True)
class Asker:
    """Their account with its rules and what is free of it (GPU-seconds), and the ids of the hosts on which they have a
    machine."""

    user: User
    account_id: int
    rules: Rules
    machines: frozenset[int]
    free: int


def asker(user: User, account: str = "") -> Asker:
    """Raises what `payers.account_id` does."""
    found = payers.account_id(user, account)
    return Asker(user, found, classes.rules_for(found), machine_hosts(user.id), quota.free(found))


def machine_hosts(user_id: int) -> frozenset[int]:
    """The ids of the hosts on which a person has a machine."""
    query = select(Instance.host_id).where(Instance.owner_id == user_id, Instance.takes_gpus)
    return frozenset(db.session.scalars(query))
