"""The reader's language and time zone."""

from __future__ import annotations

from functools import cache
from zoneinfo import available_timezones

from babel import Locale
from flask import Response, current_app, has_request_context, request
from flask_babel import get_locale

from app.extensions import settings
from app.web.sessions import viewer

COOKIE = "locale"
A_YEAR = 365 * 24 * 3600
LANGUAGES = {"en": "English", "zh_Hans_CN": "中文"}  # each in its own words
ACCEPTED = {"en": "en", "zh": "zh_Hans_CN", "zh-CN": "zh_Hans_CN", "zh-Hans": "zh_Hans_CN", "zh-SG": "zh_Hans_CN"}


def choose() -> str:
    """The person's own choice, else this browser's, else what it asks for."""
    if not has_request_context():
        return "en"
    person = viewer()
    for choice in (person.locale if person else "", request.cookies.get(COOKIE, "")):
        if choice in LANGUAGES:
            return choice
    return ACCEPTED.get(request.accept_languages.best_match(list(ACCEPTED)) or "", "en")


def choose_zone() -> str:
    """The person's own zone, else the lab's."""
    person = viewer() if has_request_context() else None
    if person is not None and person.timezone and person.timezone in zones():
        return person.timezone
    return settings().timezone


@cache
def zones() -> frozenset[str]:
    """All zones; found out once, since it means to read directories."""
    return frozenset(available_timezones())


def html_lang() -> str:
    """The page's language for `<html lang>`: `en`, `zh-Hans-CN`."""
    found: Locale | None = get_locale()
    return str(found or "en").replace("_", "-")


def remember(response: Response, choice: str) -> None:
    """Keep a language for this browser, signed in or not."""
    secure = bool(current_app.config["SESSION_COOKIE_SECURE"])
    response.set_cookie(COOKIE, choice, max_age=A_YEAR, httponly=True, samesite="Lax", secure=secure)
