"""Who is looking: Flask-Login over the sign-ins in the database."""

from __future__ import annotations

import secrets

from flask import g, session
from flask_login import current_user

from app.extensions import login
from app.models import SignIn, User
from app.services import signins

KEY = "_user_id"  # where Flask-Login looks: the random key of a sign-in, never a person's number

login.session_protection = None  # tied to address and browser it would sign out whoever walks to another room


@login.user_loader  # type: ignore[untyped-decorator]
def _load(key: str) -> User | None:
    sign_in = signins.find(key)
    g.sign_in = sign_in
    return sign_in.user if sign_in is not None else None


def viewer() -> User | None:
    """The person who is signed in, if any."""
    if g.get("bare", False):
        return None
    person = current_user._get_current_object()  # noqa: SLF001 - the documented way through the proxy
    return person if isinstance(person, User) else None


def me() -> User:
    """The person who is signed in, on pages that require it."""
    person = viewer()
    assert person is not None, "the guard lets nobody else come here"
    return person


def this_sign_in() -> SignIn:
    """The row behind this browser's cookie, on pages that require to be signed in."""
    me()
    found: SignIn = g.sign_in
    return found


def remember(key: str, person: User) -> None:
    """Hand the browser the key of its new sign-in, in a session that keeps nothing of the old one.

    Its forms' CSRF tokens say, signed, whose they are: app.web.kept asks them when the session is gone."""
    session.clear()
    session[KEY] = key
    session["csrf_token"] = f"{secrets.token_hex(20)}.{person.id}"


def forget() -> None:
    """Take the key away from the browser."""
    session.clear()
    g.pop("_login_user", None)
