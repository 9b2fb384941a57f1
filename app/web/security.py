"""Default-deny: who may call a route, from where, and the headers on every answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

from flask import Flask, Response, current_app, flash, redirect, request, url_for

from app.errors import NotAllowed
from app.extensions import settings, transaction
from app.language import gettext as _
from app.services import signins
from app.web import kept, render, sessions

View = TypeVar("View", bound=Callable[..., Any])
SAFE = {"GET", "HEAD", "OPTIONS"}
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS = {
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    # Not no-referrer: with that, browsers send `Origin: null` with our own forms, and the check below would be blind.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=(), clipboard-read=()",
}


def public(view: View) -> View:
    """Mark a route that is for everybody, signed in or not."""
    view.policy = "public"  # type: ignore[attr-defined]
    return view


def admin_required(view: View) -> View:
    """Mark a route that is for admins only."""
    view.policy = "admin"  # type: ignore[attr-defined]
    return view


def comes_back(way: Callable[[], str]) -> Callable[[View], View]:
    """Mark a route whose form is filled in again for whoever was signed out while typing: `way` makes the address that
    does so, from the request."""

    def mark(view: View) -> View:
        view.way_back = way  # type: ignore[attr-defined]
        return view

    return mark


def keeps_out(*fields: str) -> Callable[[View], View]:
    """Mark a route of which these fields are secrets: they never come back."""

    def mark(view: View) -> View:
        view.secret_fields = frozenset(fields)  # type: ignore[attr-defined]
        return view

    return mark


def policy_of(app: Flask, endpoint: str) -> str:
    """Who may call an endpoint: `public`, `token` (the API has its own guard), `admin`, and else `user`."""
    if endpoint == "static":
        return "public"
    if endpoint.partition(".")[0] == "api":
        return "token"
    return str(getattr(app.view_functions[endpoint], "policy", "user"))


def init_app(app: Flask) -> None:
    """Put the guard before every route and the headers behind it."""
    app.before_request(_guard)
    app.after_request(_add_headers)


def _guard() -> Response | None:
    if request.endpoint is None:  # no such page: the error page will say so
        return None
    policy = policy_of(current_app, request.endpoint)
    if policy == "token":
        return None
    if request.method not in SAFE:
        _refuse_foreign_origin()
    if policy == "public":
        return None
    person = sessions.viewer()
    if person is None:
        return _to_sign_in()
    if kept.KEY in request.args and request.method in SAFE and (elsewhere := kept.opened(person)) is not None:
        return elsewhere
    if policy == "admin" and not person.is_admin:
        raise NotAllowed(_("This page is for admins."), _("Ask an admin of your lab if you need it."))
    # A page that polls by itself is no sign of life.
    if not render.is_fragment() and signins.needs_touch(sessions.this_sign_in()):
        with transaction():
            signins.touch(sessions.this_sign_in())
    return None


def _refuse_foreign_origin() -> None:
    """A second lock beside the CSRF token: changes come from our own pages only."""
    site = request.headers.get("Sec-Fetch-Site", "none")
    origin = request.headers.get("Origin")
    if site not in {"same-origin", "none"} or (origin is not None and urlsplit(origin).netloc != request.host):
        raise NotAllowed(_("This request came from another site."), _("Open Berth itself and try again there."))


def _to_sign_in() -> Response:
    """The sign-in page, coming back here after it; htmx is told by header, since it would swap the page in."""
    if render.is_fragment():
        back = _path_of(request.headers.get("HX-Current-URL"))
        return Response(status=204, headers={"HX-Redirect": url_for("auth.login", next=back)})
    if request.method not in SAFE:
        flash(_("You were signed out meanwhile, and nothing was done. Sign in to go on where you were."))
    answer = redirect(url_for("auth.login", next=_way_back()))
    assert isinstance(answer, Response)
    return answer


def _way_back() -> str | None:
    """Where to go on after signing in: here; after a form was sent where it is filled in again."""
    if request.method in SAFE:
        return request.full_path.rstrip("?") if request.path != "/" else None
    view = current_app.view_functions[request.endpoint or ""]
    secret: frozenset[str] = getattr(view, "secret_fields", frozenset())
    return kept.address(_path_of(request.referrer), getattr(view, "way_back", None), secret)


def _path_of(url: str | None) -> str | None:
    """An address of our own without its host; None for others'."""
    parts = urlsplit(url or "")
    if parts.netloc != request.host or parts.path in {"", "/"}:
        return None
    return f"{parts.path}?{parts.query}" if parts.query else parts.path


def _add_headers(response: Response) -> Response:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    if settings().https:
        response.headers.setdefault("Strict-Transport-Security", "max-age=31536000; includeSubDomains")
    if request.endpoint != "static":
        response.headers.setdefault("Cache-Control", "no-store")
        response.vary.update(["Cookie", "HX-Request"])
    return response
