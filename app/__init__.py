"""Berth's applications: `create_app` is the portal, `create_core` what works without pages."""

from __future__ import annotations

from typing import Any

from flask import Flask, has_request_context
from flask.globals import request_ctx
from werkzeug.middleware.proxy_fix import ProxyFix

from app.config import BadSettings, Settings
from app.extensions import babel, csrf, db, limiter, login

LARGEST_BODY = 1024 * 1024
ADDRESSES = 4096  # that are kept
# A database behind a dead network must look dead soon: agents go on without it. Seconds, but for the last (ms).
DATABASE_PATIENCE = {"connect_timeout": 5, "keepalives_idle": 10, "keepalives_interval": 5, "tcp_user_timeout": 15000}


class Berth(Flask):
    """Flask that keeps the addresses it has built: a page has dozens, most of them those of the page before, and to
    build them took a tenth of its time."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._addresses: dict[tuple[object, ...], str] = {}

    def url_for(self, /, endpoint: str, **values: Any) -> str:
        """As Flask's."""
        adapter = request_ctx.url_adapter if has_request_context() else None
        # What a static file's address is depends on the file.
        if adapter is None or endpoint.startswith(".") or endpoint == "static" or not all(map(_plain, values.values())):
            return super().url_for(endpoint, **values)
        key = adapter.script_name, adapter.default_method, endpoint, *values.items()
        found = self._addresses.get(key)
        if found is None:
            if len(self._addresses) >= ADDRESSES:
                self._addresses.clear()
            found = self._addresses[key] = super().url_for(endpoint, **values)
        return found


def _plain(value: object) -> bool:
    """Whether what is equal to it is written in the same way, and it is short. True is equal to 1."""
    return type(value) is int or (type(value) is str and len(value) < 100)


def create_app(settings: Settings | None = None) -> Flask:
    """The portal as a WSGI application. Raises BadSettings; contacts nothing yet."""
    from app import web  # noqa: PLC0415 - an agent needs no pages, and does not stop when one of them is broken

    app = _bare(settings or Settings.load())
    app.extensions["zone"] = lambda: app.extensions["berth"].zone
    if app.extensions["berth"].https:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_proto=1)  # type: ignore[method-assign]
    login.init_app(app, add_context_processor=False)  # it would ask the database on pages that must not
    limiter.init_app(app)
    babel.init_app(app, locale_selector=web.locale.choose, timezone_selector=web.locale.choose_zone)
    web.init_app(app)  # before csrf: who is signed out is sent to sign in, whatever their form's token is worth
    csrf.init_app(app)
    return app


def create_core(settings: Settings | None = None) -> Flask:
    """The database and the settings for agents and commands: no pages, no sessions. Raises BadSettings."""
    from app.services import zones  # noqa: PLC0415 - who is the portal asks nobody

    app = _bare(settings or Settings.load())
    app.extensions["zone"] = zones.Written(app.extensions["berth"].zone)
    babel.init_app(app)
    return app


def _bare(settings: Settings) -> Flask:
    if not settings.database_url:
        raise BadSettings("There is no database: start Berth with `berth up`, or set DATABASE_URL.")
    app = Berth(__name__)
    app.config.from_mapping(_flask_config(settings))
    app.extensions["berth"] = settings
    db.init_app(app)
    return app


def _flask_config(settings: Settings) -> dict[str, object]:
    return {
        "SECRET_KEY": settings.ensure_secret_key(),
        "SQLALCHEMY_DATABASE_URI": settings.database_url,
        "SQLALCHEMY_ENGINE_OPTIONS": {"connect_args": DATABASE_PATIENCE},
        "MAX_CONTENT_LENGTH": LARGEST_BODY,
        "SESSION_COOKIE_NAME": "__Host-session" if settings.https else "session",
        "SESSION_COOKIE_SECURE": settings.https,
        "SESSION_COOKIE_HTTPONLY": True,
        "SESSION_COOKIE_SAMESITE": "Lax",
        "WTF_CSRF_TIME_LIMIT": None,  # as long as the session: a form may stay open over lunch
        "WTF_CSRF_SSL_STRICT": False,  # web.security checks Origin and Sec-Fetch-Site on http too
        "BABEL_DEFAULT_LOCALE": "en",
        "BABEL_DEFAULT_TIMEZONE": settings.timezone,
        "RATELIMIT_ENABLED": settings.rate_limits,
        "RATELIMIT_STORAGE_URI": _limits_storage(settings.redis_url),
        "RATELIMIT_STORAGE_OPTIONS": {"socket_connect_timeout": 1, "socket_timeout": 1} if settings.redis_url else {},
        "RATELIMIT_IN_MEMORY_FALLBACK_ENABLED": True,
        "RATELIMIT_KEY_PREFIX": "lim",
    }


def _limits_storage(redis_url: str) -> str:
    """The limiter's spelling of a Valkey address; without one, counts are kept in this process."""
    if redis_url.startswith("unix://"):
        return "redis+" + redis_url
    return redis_url or "memory://"
