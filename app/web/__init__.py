"""The portal's pages and its API: parse, ask a service, commit, wake, render."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from flask import Flask

from app.extensions import csrf
from app.web import compression, errors, locale, render, security, static

__all__ = ["init_app", "locale"]

PAGES = (
    "auth",
    "home",
    "calendar",
    "bookings",
    "machines",
    "quota",
    "settings",
    "people_access",
    "hosts",
    "policy",
    "audit",
    "health",
    "api",
)


def init_app(app: Flask) -> None:
    """Give the application its guard, its pages and its error pages."""
    static.init_app(app)
    render.init_app(app)
    errors.init_app(app)
    security.init_app(app)
    compression.init_app(app)
    for name in PAGES:
        if find_spec(f"app.web.{name}") is None:
            continue
        module = import_module(f"app.web.{name}")
        if not hasattr(module, "bp"):
            continue
        app.register_blueprint(module.bp)
        if name == "api":  # bearer tokens only: cookies mean nothing there, so nothing can be forged with them
            csrf.exempt(module.bp)
