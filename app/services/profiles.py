"""What people change about themselves: name, e-mail, language, time zone, password."""

from __future__ import annotations

from zoneinfo import available_timezones

from app.errors import InvalidInput
from app.extensions import db
from app.language import gettext as _
from app.models import SignIn, User
from app.services import accounts, audit, passwords, signins


def change(user: User, *, full_name: str, email: str, locale: str, timezone: str) -> None:
    """Set one's profile. `locale` and `timezone` may be empty: as the browser asks, as the lab has it."""
    if timezone and timezone not in available_timezones():
        raise InvalidInput(_("There is no such time zone."), field="timezone")
    user.full_name = accounts.one_line(full_name, "full_name", 120)
    user.email = accounts.one_line(email, "email", 254)
    user.locale = locale
    user.timezone = timezone
    db.session.flush()
    audit.record(user.username, "user.profile_changed", f"user:{user.username}")


def change_password(user: User, current: str, new: str, *, here: SignIn) -> None:
    """Set a new password; every other browser is signed out. Raises InvalidInput naming the field."""
    if not passwords.matches(current, user.password_hash):
        raise InvalidInput(_("This is not your current password."), field="current")
    user.password_hash = passwords.hashed(new, user.username)
    signins.end_all(user, but=here)
    db.session.flush()
    audit.record(user.username, "user.password_changed", f"user:{user.username}")
