"""What forms have in common: the service's refusal of a field shown beside that field, and checks of shape."""

from __future__ import annotations

from typing import Any

from flask import request, url_for
from flask_wtf import FlaskForm
from wtforms import BooleanField, Form
from wtforms.validators import InputRequired, Length

from app.errors import DomainError, InvalidInput
from app.language import lazy_gettext as _l
from app.services.placing import FULL

NOT_TYPED = {"csrf_token", "request_key", "endpoint"}


class PageForm(FlaskForm):  # type: ignore[misc]
    """A form on a page. Its hidden CSRF input is written by the template and checked before any route runs."""

    class Meta(FlaskForm.Meta):  # type: ignore[misc]
        """CSRFProtect checks every form already."""

        csrf = False

    def refuse(self, error: InvalidInput) -> None:
        """Show a service's refusal beside the field that it names, or above the form."""
        show_refusal(self, error)


class RoomForm(PageForm):
    """Of what takes room on a host. `full`: refused for want of it; an admin may say `anyway`."""

    full = False
    anyway = BooleanField(_l("There is no room for it: do it all the same"))

    def against(self, error: DomainError) -> None:
        """Show what a service refuses above the form."""
        self.form_errors.append(str(error))
        self.full = error.details.get("rule") == FULL


def show_refusal(form: Form, error: InvalidInput) -> None:
    """Put the words of a refusal where the person looks for them."""
    field = form._fields.get(error.field)
    if field is None:
        form.form_errors.append(str(error))
    else:
        field.errors = [*field.errors, str(error)]


def filled_in(endpoint: str, *but: str, **more: Any) -> str:
    """The address of a page with a form, filled in with what was sent but for the fields `but`, and with `more`: for
    whoever was signed out meanwhile."""
    left_out = NOT_TYPED.union(but)
    names = [name for name in request.form if name not in left_out and not name.startswith("_")]
    typed: dict[str, Any] = {name: request.form.getlist(name) for name in names}
    return url_for(endpoint, **typed | (request.view_args or {}) | more)


def required(**kwargs: Any) -> InputRequired:
    """Refuse an empty field."""
    return InputRequired(message=_l("Fill this in."), **kwargs)


def at_most(count: int) -> Length:
    """No longer than this."""
    return Length(max=count, message=_l("Use %(count)s characters at most.", count=count))
