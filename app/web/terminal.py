"""A terminal in the browser. The portal hands out a ticket; the host's agent, which has LXD, serves the terminal."""

from __future__ import annotations

import secrets

from flask import Blueprint, Response, jsonify, request

from app.environment import WEBSOCKET
from app.errors import Conflict, RuleRefused
from app.extensions import limiter, settings, transaction
from app.language import gettext as _
from app.models import Instance, InstanceStatus
from app.services import instances, terminals
from app.web.machine_words import silence_of
from app.web.render import render
from app.web.security import CSP
from app.web.sessions import me, this_sign_in

bp = Blueprint("terminal", __name__, url_prefix="/machines")


@bp.get("/<name>/terminal")
def show(name: str) -> Response:
    """The page that holds the terminal. xterm.js writes styles of its own: this page alone lets it, by a nonce, and
    this page alone may reach the agent."""
    machine = instances.get(me(), name)
    trouble, nonce = _trouble(machine), secrets.token_urlsafe(16)
    page = render("terminal/show.html", machine=machine, trouble=trouble, nonce=nonce)
    if not trouble:
        policy = CSP.replace("style-src 'self'", f"style-src 'self' 'nonce-{nonce}'")
        policy = policy.replace("connect-src 'self'", f"connect-src 'self' {machine.host.terminal_url}")
        page.headers["Content-Security-Policy"] = policy
    return page


@bp.post("/<name>/terminal/ticket")
@limiter.limit("30 per minute")
def ticket(name: str) -> Response:
    """A ticket for one terminal, for the script of that page."""
    machine = instances.get(me(), name)
    if trouble := _trouble(machine):
        raise Conflict(trouble)
    origin = request.headers.get("Origin")
    if not origin:  # a browser sends it with every POST; the agent compares it with what comes to it
        raise RuleRefused(_("This request names no page that it came from."))
    with transaction():
        key = terminals.ticket(this_sign_in(), machine, origin)
    return jsonify(ticket=key)


def _trouble(machine: Instance) -> str:
    """Why there can be no terminal now, or ""."""
    url = machine.host.terminal_url
    if machine.status != InstanceStatus.RUNNING:
        return _("%(name)s does not run. Start it first.", name=machine.name)
    if silence := silence_of(machine.host):
        return silence
    if not WEBSOCKET.fullmatch(url):
        return _("%(host)s does not serve terminals yet. Its agent does so once it is started.", host=machine.host.name)
    if settings().https and not url.startswith("wss://"):
        return _(
            "%(host)s serves terminals without TLS, which browsers refuse on this page. An admin sets "
            "BERTH_TERMINAL_URL for its agent; the README says how.",
            host=machine.host.name,
        )
    return ""
