"""What somebody typed and sent after they had been signed out: it comes back when they sign in again, to nobody else.

It travels in the address that follows the sign-in page, sealed, with whose it is. That is told by the form's own CSRF
token, which carries the person's number and our signature; who typed nothing on a page of ours gets nothing back.
Passwords and fields that a route calls secret are left out.
"""

from __future__ import annotations

import base64
import json
import zlib
from binascii import Error
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from flask import Flask, Response, current_app, flash, g, request
from itsdangerous import BadData, URLSafeTimedSerializer
from werkzeug.exceptions import HTTPException

from app.language import gettext as _
from app.models import User
from app.services import sealing
from app.web.filling import filled
from app.web.forms import NOT_TYPED
from app.web.render import go

KEY = "kept"  # the field of the address
# Characters of the address, quoted: it goes out in a header twice, and nginx takes 4 kB of headers in all. What is
# longer is still there when one goes back in the browser.
LONGEST = 2600
LASTS = 12 * 3600  # seconds; later it is no more than an old address in the browser's history
SECRET = ("password", "secret")  # no field with such a name is kept
GUARDS = {"typed", "at_once", "anyway"}  # what says "I mean it" is said anew


def init_app(app: Flask) -> None:
    """Fill in the pages that are asked for with what was kept."""
    app.after_request(_fill)


def address(page: str | None, way: Callable[[], str] | None, secret: frozenset[str]) -> str | None:
    """Where to go on after signing in, for a form that was sent from `page` by whoever was signed out.

    `way`: makes the address that fills the form in by itself, if the route has one. `secret`: fields never kept."""
    by = _author()
    if way is not None:
        full = way()
        place = urlsplit(full).path
        return _sealed(place, {"by": by, "to": full}) if by is not None and len(full) <= LONGEST else place
    typed = {name: request.form.getlist(name) for name in request.form if _is_kept(name, secret)}
    if by is None or not typed:
        return _readable(page) if page else None
    return _sealed(_readable(page or request.path), {"by": by, "form": request.path, "typed": typed})


def opened(person: User) -> Response | None:
    """An answer if what is kept in this address leads elsewhere; None: the page is filled in with it."""
    found = _unsealed(request.args[KEY])
    if found is None:
        flash(_("What was typed here is not kept any more."))
        return go(_without(request.full_path))
    if found["by"] != person.id:
        flash(_("What was typed there was somebody else's. It is not shown to you."))
        return go("/")
    if "to" in found:
        return go(found["to"])
    g.kept = found
    flash(_("You were signed out: nothing was changed. What you had typed is filled in again."))
    return None


def _fill(response: Response) -> Response:
    found = g.get("kept")
    if found and response.status_code == 200 and response.mimetype == "text/html":
        response.set_data(filled(response.get_data(as_text=True), found["form"], found["typed"]))
    return response


def _is_kept(name: str, secret: frozenset[str]) -> bool:
    lowered = name.lower()
    left_out = NOT_TYPED | GUARDS | secret
    return not (name in left_out or name.startswith("_") or any(one in lowered for one in SECRET))


def _author() -> int | None:
    """Whose page the form was on, by its CSRF token; see sessions.remember."""
    signer = URLSafeTimedSerializer(current_app.secret_key or "", salt="wtf-csrf-token")
    with suppress(BadData):
        number = str(signer.loads(request.form.get("csrf_token", ""))).partition(".")[2]
        return int(number) if number.isdigit() else None
    return None


def _readable(page: str) -> str:
    """The page, or the nearest above it that can be asked for: a refused form is shown where it was sent to."""
    path, mark, query = _without(page).partition("?")
    adapter = current_app.url_map.bind("")
    while path.strip("/"):
        with suppress(HTTPException):
            adapter.match(path, "GET")
            return path + mark + query
        path, mark, query = path.rstrip("/").rpartition("/")[0], "", ""
    return "/"


def _without(page: str) -> str:
    """The page without what was kept there before."""
    path, _mark, query = page.partition("?")
    left = [pair for pair in parse_qsl(query, keep_blank_values=True) if pair[0] != KEY]
    return f"{path}?{urlencode(left)}" if left else path


def _sealed(page: str, content: dict[str, Any]) -> str:
    packed = base64.b85encode(zlib.compress(json.dumps(content).encode(), 9)).decode()
    sealed = sealing.seal(str(current_app.secret_key), packed).rstrip("=")
    full = page + ("&" if "?" in page else "?") + urlencode({KEY: sealed})
    return full if len(quote(full, safe="")) <= LONGEST else page


def _unsealed(sealed: str) -> dict[str, Any] | None:
    packed = sealing.unseal(str(current_app.secret_key), sealed + "=" * (-len(sealed) % 4), within=LASTS)
    with suppress(ValueError, Error, zlib.error):
        content = json.loads(zlib.decompress(base64.b85decode(packed or "")))
        return content if isinstance(content, dict) and "by" in content else None
    return None
