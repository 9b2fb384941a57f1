"""From a context to an answer: whole pages, fragments for htmx, and redirects that suit both."""

from __future__ import annotations

from typing import Any

from flask import Flask, Response, get_flashed_messages, make_response, redirect, render_template, request
from markupsafe import Markup

from app.language import catalogue
from app.web import states, times


def is_fragment() -> bool:
    """Whether htmx asks for a part of a page. A page restored from history is asked for whole."""
    return request.headers.get("HX-Request") == "true" and "HX-History-Restore-Request" not in request.headers


def render(page: str, /, fragment: str | None = None, *, status: int = 200, **context: Any) -> Response:
    """The page, or only its fragment when htmx asks; messages that wait come along with either."""
    if fragment is None or not is_fragment():
        return make_response(render_template(page, **context), status)
    body = render_template(fragment, **context)
    if messages := get_flashed_messages(with_categories=True):
        body += render_template("_flash.html", messages=messages, out_of_band=True)
    return make_response(body, status)


def go(url: str) -> Response:
    """Send the browser to a page after a change: 303, or htmx's own redirect (it would follow a 303 inside)."""
    if is_fragment():
        return Response(status=204, headers={"HX-Redirect": url})
    answer = redirect(url, 303)
    assert isinstance(answer, Response)
    return answer


def init_app(app: Flask) -> None:
    """Filters and values that every template has."""
    app.jinja_env.trim_blocks = True
    app.jinja_env.lstrip_blocks = True
    app.jinja_env.globals.update(_=_gettext, gettext=_gettext, ngettext=_ngettext, pgettext=_pgettext)
    for part in (states.state_of, states.state_tag, states.icon_tag):
        app.add_template_global(part)
    times.init_app(app)


# A template's sentences: as Jinja's own extension says them, but without handing each of them all that the page knows,
# which it copies for each one in a loop. They took a tenth of the time of a page.
def _gettext(text: str, /, **values: Any) -> Markup:
    found = Markup(catalogue.get_translations().ugettext(text))  # noqa: S704 - the translators'
    return found % values if values or "%" in found else found  # what is put into it is escaped by that


def _ngettext(one: str, many: str, number: int, /, **values: Any) -> Markup:
    return Markup(catalogue.get_translations().ungettext(one, many, number)) % ({"num": number} | values)  # noqa: S704 - likewise


def _pgettext(context: str, text: str, /, **values: Any) -> Markup:
    return Markup(catalogue.get_translations().upgettext(context, text)) % ({"context": context} | values)  # noqa: S704 - likewise
