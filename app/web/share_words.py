"""Shared directories in words: how it stands with one, and what one is for."""

from __future__ import annotations

from collections.abc import Sequence

from app.language import gettext as _
from app.language import lazy_gettext as _l
from app.models import SharedDirectory
from app.services.share_findings import findings

__all__ = ["KINDS", "findings", "kind", "people", "state", "waiting"]

KINDS = {  # read_only, own → what it is
    (True, False): _l("Everybody reads the same"),
    (False, False): _l("Everybody writes into the same"),
    (False, True): _l("Each person has a directory of their own in it"),
}


def state(share: SharedDirectory) -> tuple[str, str]:
    """The code in app.web.states, and the word."""
    if share.checked_at is None:
        return "attaching", _("Being looked at")
    if not share.fit:
        return "failed", _("Not fit to be shared")
    if not share.active:
        return ("no_data", _("Off, but not everywhere")) if share.trouble else ("free", _("Ready to be switched on"))
    return ("no_data", _("On, but not everywhere")) if share.trouble else ("in_use", _("On"))


def kind(share: SharedDirectory) -> str:
    """What one is."""
    return str(KINDS[share.read_only, share.own])


def people(share: SharedDirectory) -> str:
    """Whom one is for."""
    return _("Everybody") if share.for_everyone else _(", ").join(sorted(user.username for user in share.users))


def waiting(found: Sequence[SharedDirectory]) -> bool:
    """Whether the agent has yet to look at one of them."""
    return any(share.checked_at is None for share in found)
