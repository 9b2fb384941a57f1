"""How NVIDIA's libraries come into a machine, and whether they are those of its host's driver, in words."""

from __future__ import annotations

from dataclasses import dataclass

from app.language import gettext as _
from app.models import Instance
from app.services import lending
from app.services.lending import Libraries, Source


@dataclass(frozen=True)
class Line:
    """What a machine's page says: `text`, whether they fit, and what is to be done ("" for nothing).

    `due`: a start is to come first. `may_lend`: the host's can be given to it."""

    text: str
    fit: str
    todo: str = ""
    due: bool = False
    may_lend: bool = False


def line(machine: Instance) -> Line | None:
    """Of a machine with its host loaded; None where there is nothing to say."""
    found = lending.of(machine)
    if found is None:
        return None
    todo = ""
    if found.due:
        todo = _("They are there from its next start on.")
    elif not found.fit and not found.may_lend:
        todo = _("Programs on a GPU need those of %(driver)s in it.", driver=found.driver)
    return Line(_text(found), _fit(found), todo, found.due, found.may_lend)


def _text(found: Libraries) -> str:
    if found.source == Source.MOUNT:
        if not found.version:
            return _("the host's, of an earlier driver, mounted read-only")
        return _("the host's %(version)s, mounted read-only", version=found.version)
    if found.source == Source.RUNTIME:
        return _("the host's %(version)s, by nvidia.runtime at each start", version=found.version)
    if found.source == Source.OWN:
        return _("its own, %(version)s from its template", version=found.version)
    return _("none of the host's (%(driver)s)", driver=found.driver)


def _fit(found: Libraries) -> str:
    if found.fit is None:
        return ""
    if found.fit:
        return _("They fit the host's driver.")
    return _("They do not fit the host's driver, %(driver)s.", driver=found.driver)
