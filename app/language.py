"""The translators' words: `gettext` and its like, as Flask-Babel's, which take most of the time of a sentence to find
out where words come from. A page has hundreds."""

from __future__ import annotations

from typing import Any

from flask import g, has_app_context
from flask_babel import Babel, Domain, LazyString, get_locale


class Catalogue(Domain):  # type: ignore[misc] # flask_babel has no types
    """The translators' words, found once for a request and a language."""

    def get_translations(self) -> Any:
        """Those of the language that counts now."""
        if not has_app_context():
            return super().get_translations()
        request = g._get_current_object()  # noqa: SLF001 - the documented way through the proxy, once and not each time
        locale = getattr(request.get("_flask_babel"), "babel_locale", None) or get_locale()
        kept = request.get("catalogue")
        if kept is None or kept[0] is not locale:
            kept = request.catalogue = locale, super().get_translations()
        return kept[1]


catalogue = Catalogue()
gettext, ngettext, pgettext = catalogue.gettext, catalogue.ngettext, catalogue.pgettext


class Languages(Babel):  # type: ignore[misc] # likewise
    """Flask-Babel with our catalogue."""

    domain_instance = catalogue


def lazy_gettext(text: str, **values: Any) -> LazyString:
    """A sentence in the language of whoever reads it, not of whoever wrote it down."""
    return LazyString(gettext, text, **values)
