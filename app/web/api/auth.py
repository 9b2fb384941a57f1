"""Who calls the API: a bearer token and nothing else; cookies mean nothing here."""

from __future__ import annotations

import logging

from flask import g, request
from flask_limiter.util import get_remote_address
from limits import parse
from werkzeug.exceptions import TooManyRequests

from app.extensions import limiter, transaction
from app.services import tokens
from app.services.tokens import BadToken, Bearer

log = logging.getLogger(__name__)

FAILURES = parse("30 per minute")  # useless tokens from one address; good ones never wait


def bearer() -> Bearer:
    """Who this request speaks for; set by `sign_in`."""
    found: Bearer = g.bearer
    return found


def sign_in() -> None:
    """Find out who calls. Raises BadToken, or 429 after too many of those."""
    scheme, _space, text = request.headers.get("Authorization", "").partition(" ")
    try:
        if scheme.lower() != "bearer":
            raise tokens.refused()
        g.bearer = found = tokens.authenticate(text.strip())
    except BadToken:
        _count_failure()
        raise
    if found.stale:
        with transaction():
            tokens.touch(found.token_id)


def _count_failure() -> None:
    if not limiter.enabled:
        return
    try:
        within = limiter.limiter.hit(FAILURES, "bearer", get_remote_address())
    except Exception as error:  # noqa: BLE001 - the counter being away must not lock people out
        log.warning("cannot count failed tokens: %s", type(error).__name__)
        return
    if not within:
        raise TooManyRequests
