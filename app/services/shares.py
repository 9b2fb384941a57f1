"""Shared directories: what an admin offers, to whom, and what follows from that for each machine of a host."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.orm import joinedload, selectinload

from app import clock
from app.drivers.shares import Found, Share, Wish, overlap, proper, share_device
from app.errors import InvalidInput, NotFound, RuleRefused
from app.extensions import db
from app.language import gettext as _
from app.models import Host, Instance, SharedDirectory, User
from app.services import audit
from app.services.unix_ids import COMMON_GID, uid_of

NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True)
class Terms:
    """What an admin says of a shared directory. `people`: whom it is for; None: everybody."""

    name: str
    source: str
    path: str
    read_only: bool = True
    own: bool = False
    people: tuple[User, ...] | None = None


def of_host(host: Host) -> list[SharedDirectory]:
    """A host's shared directories with their people, by name."""
    return list(db.session.scalars(_current().where(SharedDirectory.host_id == host.id).order_by(SharedDirectory.name)))


def everywhere() -> list[SharedDirectory]:
    """All hosts' shared directories, by host and name."""
    return list(db.session.scalars(_current().join(Host).order_by(Host.name, SharedDirectory.name)))


def get(host: Host, name: str) -> SharedDirectory:
    """One of them. Raises NotFound."""
    query = _current().where(SharedDirectory.host_id == host.id, SharedDirectory.name == name)
    found = db.session.scalar(query)
    if found is None:
        raise NotFound(_("%(host)s has no shared directory %(name)s.", host=host.name, name=name))
    return found


def add(actor: str, host: Host, terms: Terms) -> SharedDirectory:
    """Offer a directory; it is switched on once the host's agent has looked at it. Raises InvalidInput."""
    db.session.execute(select(Host.id).where(Host.id == host.id).with_for_update())  # two at once would overlap
    _check(host, terms, of_host(host))
    made = SharedDirectory(host_id=host.id)
    _write(made, terms)
    db.session.add(made)
    db.session.flush()
    audit.record(actor, "share.added", _target(host, made), **_facts(terms))
    return made


def change(actor: str, host: Host, share: SharedDirectory, terms: Terms) -> None:
    """Offer it otherwise. A new place, or more rights, is looked at and switched on anew. Raises InvalidInput."""
    db.session.execute(select(Host.id).where(Host.id == host.id).with_for_update())
    _check(host, terms, [other for other in of_host(host) if other.id != share.id])
    before = (share.source, share.read_only, share.own)
    _write(share, terms)
    if before != (share.source, share.read_only, share.own):
        share.active, share.checked_at, share.findings, share.trouble = False, None, [], ""
    db.session.flush()
    audit.record(actor, "share.changed", _target(host, share), **_facts(terms))


def switch(actor: str, host: Host, share: SharedDirectory, *, on: bool) -> None:
    """Put it into people's machines, or take it out. Raises RuleRefused while anything speaks against it."""
    if on and not share.fit:
        raise RuleRefused(
            _("%(name)s cannot be switched on.", name=share.name),
            _("Its page says what the host's agent found. Put that right, then have it looked at again."),
        )
    share.active, share.trouble = on, ""
    db.session.flush()
    audit.record(actor, "share.on" if on else "share.off", _target(host, share))


def retire(actor: str, host: Host, share: SharedDirectory) -> None:
    """Take it out of all machines for good. What lies in it stays on the host. Until no machine has it, the host's
    agent has yet to look: it is among the `leaving`."""
    share.retired_at, share.active, share.checked_at, share.trouble = clock.now(), False, None, ""
    db.session.flush()
    audit.record(actor, "share.retired", _target(host, share), source=share.source)


def look_again(share: SharedDirectory) -> None:
    """Let the host's agent look at it anew."""
    share.checked_at = None
    db.session.flush()


def wishes(host: Host) -> dict[int, Wish]:
    """What the host's file systems are asked, by the directory's id; made ready is only what is switched on."""
    owners = sorted({machine.owner for machine in _machines(host)}, key=lambda user: user.id)
    return {
        share.id: Wish(
            share.source,
            share.read_only,
            share.own,
            COMMON_GID,
            tuple((user.username, uid_of(user)) for user in owners if _for(share, user)),
            share.active,
        )
        for share in of_host(host)
    }


def record(share_id: int, found: Sequence[Found], actor: str) -> None:
    """Keep what the host's agent found. What is not fit any more is taken out of the machines, but stays on."""
    share = db.session.get(SharedDirectory, share_id)
    if share is None:
        return
    findings = [{"level": one.level, "code": one.code, "detail": one.detail} for one in found]
    if share.checked_at is not None and share.findings != findings and share.active:
        host = db.session.get_one(Host, share.host_id)
        audit.record(actor, "share.seen", _target(host, share), findings=findings)
    share.findings, share.checked_at = findings, clock.now()
    db.session.flush()


def leaving(host: Host) -> list[SharedDirectory]:
    """Those that are retired, and that a machine of the host may still have, by name."""
    mine = (SharedDirectory.host_id == host.id, SharedDirectory.retired_at.is_not(None))
    query = select(SharedDirectory).where(*mine, SharedDirectory.checked_at.is_(None)).order_by(SharedDirectory.name)
    return list(db.session.scalars(query.execution_options(populate_existing=True)))


def settle(host: Host, troubles: Mapping[int, str], there: Collection[int]) -> None:
    """Keep why a machine has not what it should, by the directory's id; and let go of what is retired and not `there`,
    in any machine, any more."""
    for share in (*of_host(host), *leaving(host)):
        share.trouble = troubles.get(share.id, "")
        if share.retired_at is not None and share.id not in there:
            share.checked_at = clock.now()
    db.session.flush()


def of_machine(machine: Instance) -> list[SharedDirectory]:
    """Those that it has or is about to have, by their path inside; owner and host must be loaded."""
    return sorted(_given(of_host(machine.host), machine.owner), key=lambda share: share.path)


def desired(host: Host) -> dict[str, dict[str, Share]]:
    """By machine of the host, the shared directories that it should have."""
    offered = of_host(host)
    return {
        machine.name: {
            share_device(share.id): Share(_source(share, machine.owner), share.path, share.read_only)
            for share in _given(offered, machine.owner)
        }
        for machine in _machines(host)
    }


def owners(host: Host) -> dict[str, str]:
    """By machine of the host, whose mark it bears: another one of that name is not meant."""
    return {machine.name: machine.owner.username for machine in _machines(host)}


def _current() -> Select[SharedDirectory]:
    return (
        select(SharedDirectory)
        .where(SharedDirectory.retired_at.is_(None))
        .options(joinedload(SharedDirectory.host), selectinload(SharedDirectory.users))
        .execution_options(populate_existing=True)  # the agent writes beside us
    )


def _machines(host: Host) -> Sequence[Instance]:
    query = select(Instance).where(Instance.host_id == host.id, Instance.deleted_at.is_(None))
    return db.session.scalars(query.options(joinedload(Instance.owner))).all()


def _given(offered: Sequence[SharedDirectory], user: User) -> list[SharedDirectory]:
    on = (share for share in offered if share.active and share.fit and _for(share, user))
    return [share for share in on if user.username not in _without(share)]


def _for(share: SharedDirectory, user: User) -> bool:
    return share.for_everyone or user in share.users


def _without(share: SharedDirectory) -> set[str]:
    """Whose own directory could not be made: LXD would take one that is not there, and never look again."""
    return {found["detail"].partition(":")[0] for found in share.findings if found["code"] == "person"}


def _source(share: SharedDirectory, person: User) -> str:
    return f"{share.source}/{person.username}" if share.own else share.source


def _write(share: SharedDirectory, terms: Terms) -> None:
    share.name, share.source, share.path = terms.name, terms.source, terms.path
    share.read_only, share.own = terms.read_only, terms.own
    share.for_everyone, share.users = terms.people is None, list(terms.people or ())


def _check(host: Host, terms: Terms, others: Sequence[SharedDirectory]) -> None:
    if not NAME.fullmatch(terms.name) or terms.name == "new":
        raise InvalidInput(_("A name may hold small letters, digits and inner hyphens, 63 at most."), field="name")
    if any(other.name == terms.name for other in others):
        raise InvalidInput(_("%(host)s has a shared directory of that name.", host=host.name), field="name")
    for field, path in (("source", terms.source), ("path", terms.path)):
        if len(path) > 200 or not proper(path):
            raise InvalidInput(
                _("Write a path such as /srv/data: letters, digits, dots and hyphens, and no directory of the system."),
                field=field,
            )
    for other in others:
        if overlap(terms.source, other.source):
            text = _("It is the same directory as that of %(name)s, or one lies in the other.", name=other.name)
            raise InvalidInput(text, field="source")
        if overlap(terms.path, other.path):
            text = _("%(name)s has this place in the machines, or one lies in the other.", name=other.name)
            raise InvalidInput(text, field="path")
    if terms.own and terms.read_only:
        raise InvalidInput(_("A directory of one's own that nobody can write to is of no use."), field="own")
    if terms.people is not None and not terms.people:
        raise InvalidInput(_("Choose somebody, or everybody."), field="people")


def _target(host: Host, share: SharedDirectory) -> str:
    return f"share:{host.name}/{share.name}"


def _facts(terms: Terms) -> dict[str, Any]:
    people = None if terms.people is None else sorted(user.username for user in terms.people)
    return {
        "source": terms.source,
        "path": terms.path,
        "read_only": terms.read_only,
        "own": terms.own,
        "people": people,
    }
