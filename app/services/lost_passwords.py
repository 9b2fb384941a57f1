"""A new password for whoever lost theirs: somebody else sets it and hands it over. Nothing keeps it but as a hash.

All their browsers are signed out, and with them their terminals and downloads. API tokens, SSH keys and calendar
addresses stay, as when people change a password themselves: what was only forgotten must not stop their programs.
"""

from __future__ import annotations

import hashlib

from app.errors import Conflict, InvalidInput, NotAllowed, RuleRefused
from app.extensions import db
from app.language import gettext as _
from app.models import User, UserState
from app.services import accounts, audit, machine_passwords, passwords, signins


def check(user: User, actor: str) -> None:
    """Refuse oneself (NotAllowed), and who has not been let in yet (RuleRefused)."""
    if user.username == actor:
        raise NotAllowed(_("You cannot do this to yourself."), _("Change your own password in Settings."))
    if user.state not in {UserState.ACTIVE, UserState.DISABLED}:
        raise RuleRefused(_("%(name)s has no account yet.", name=user.display_name), _("Approve this person first."))


def mark(user: User) -> str:
    """A short text that is another for another password: so that a page that is sent again sets no second one."""
    return hashlib.sha256(user.password_hash.encode()).hexdigest()[:16]


def generate(user: User) -> str:
    """A password to read and to type, that `passwords.check` takes for this person."""
    while True:
        made = machine_passwords.generate()
        try:
            passwords.check(made, user.username)
        except InvalidInput:  # a username of two letters is in one of sixty
            continue
        return made


def set_password(username: str, password: str, *, actor: str, seen: str | None = None) -> User:
    """Give a person a new password; they sign in anew and are told. `seen`: the mark when it was asked for, if it was.

    Raises NotFound, InvalidInput, what `check` raises, and Conflict if the password was changed since."""
    user = accounts.locked(username)
    check(user, actor)
    if seen is not None and seen != mark(user):
        raise Conflict(
            _("The password of %(name)s was changed meanwhile.", name=user.display_name),
            _("If you set it and did not keep it, set another one."),
        )
    user.password_hash = passwords.hashed(password, user.username)
    signins.end_all(user)
    db.session.flush()
    audit.record(actor, "user.password_set", f"user:{user.username}")
    return user
