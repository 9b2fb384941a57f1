"""People's numbers inside their machines: the same in all of them, so that files in shared directories have one owner.

Shared directories are id-mapped: uid N inside is uid N of the host's files.
"""

from __future__ import annotations

from app.models import User

FIRST = 20000  # above what any system hands out by itself, within the 65,536 ids of a machine
LAST = 65533  # 65534 is nobody
COMMON_GID = 19999  # everybody's account is in this group: it owns the directories that people share


def uid_of(person: User) -> int:
    """The person's uid, and the gid of their own group."""
    number = FIRST + person.id
    if number > LAST:
        raise ValueError(f"no uid is left for person {person.id}")
    return number
