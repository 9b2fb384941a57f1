"""One's own settings: profile, password, signed-in browsers, API tokens."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, flash, url_for
from wtforms import EmailField, IntegerField, PasswordField, SelectField, SelectMultipleField, StringField
from wtforms.validators import Email, Optional
from wtforms.widgets import CheckboxInput, ListWidget

from app import clock
from app.errors import InvalidInput
from app.extensions import lab_zone, limiter, transaction
from app.language import gettext as _
from app.language import lazy_gettext as _l
from app.services import profiles, signins, tokens
from app.web import locale
from app.web.forms import PageForm, at_most, required
from app.web.render import go, render
from app.web.sessions import me, this_sign_in

bp = Blueprint("settings", __name__, url_prefix="/settings")

MAIL = Email(message=_l("Use an address such as li.wei@example.org."))


class ProfileForm(PageForm):
    """Who one is, and how pages should read."""

    full_name = StringField(_l("Full name"), [required(), at_most(120)])
    email = EmailField(_l("E-mail"), [Optional(), at_most(254), MAIL])
    locale = SelectField(_l("Language"))
    timezone = SelectField(_l("Time zone"))

    def offer_choices(self) -> None:
        """Languages in their own words; zones by name."""
        self.locale.choices = [("", _("As the browser asks")), *locale.LANGUAGES.items()]
        lab = _("The lab's (%(zone)s)", zone=str(lab_zone()))
        self.timezone.choices = [("", lab), *((zone, zone.replace("_", " ")) for zone in zones())]


class PasswordForm(PageForm):
    """The old one proves that it is not somebody at an open screen."""

    current = PasswordField(_l("Current password"), [required()])
    password = PasswordField(_l("New password"), [required()])


class TokenForm(PageForm):
    """What a token is for and how long it lives."""

    name = StringField(_l("Name"), [required(), at_most(tokens.NAME_LENGTH)])
    scopes = SelectMultipleField(
        _l("May"), option_widget=CheckboxInput(), widget=ListWidget(prefix_label=False), default=[tokens.READ]
    )
    days = IntegerField(_l("Days until it expires"), [required()], default=tokens.DEFAULT_DAYS)

    def offer_choices(self) -> None:
        """What a token can be allowed; `admin` only for admins."""
        words = {
            tokens.READ: _("see what you see (read)"),
            tokens.BOOK: _("make and change bookings (book)"),
            tokens.ADMIN: _("act as an admin (admin)"),
        }
        self.scopes.choices = [(name, words[name]) for name in tokens.SCOPES if name != tokens.ADMIN or me().is_admin]


def zones() -> list[str]:
    """Time zones that people live in."""
    named = sorted(z for z in locale.zones() if "/" in z and not z.startswith(("Etc/", "SystemV/")))
    return [*named, "UTC"]


@bp.get("")
def index() -> Response:
    """Everything that one can set."""
    return _page()


@bp.post("/profile")
def profile() -> Response:
    """Change name, address, language, zone."""
    form = ProfileForm(prefix="profile-")
    form.offer_choices()
    if form.validate():
        try:
            with transaction():
                profiles.change(me(), **{field.short_name: field.data or "" for field in form})
        except InvalidInput as error:
            form.refuse(error)
        else:
            flash(_("Profile saved."))
            answer = go(url_for("settings.index"))
            if form.locale.data:  # the choice in the footer must not win over this one after signing out
                locale.remember(answer, form.locale.data)
            return answer
    return _page(profile=form)


@bp.post("/password")
@limiter.limit("10 per hour")
def password() -> Response:
    """Change the password; other browsers are signed out."""
    form = PasswordForm(prefix="password-")
    if form.validate():
        try:
            with transaction():
                profiles.change_password(me(), form.current.data, form.password.data, here=this_sign_in())
        except InvalidInput as error:
            form.refuse(error)
        else:
            flash(_("Password changed. Other browsers are signed out."))
            return go(url_for("settings.index"))
    return _page(password=form)


@bp.post("/sign-out-others")
def sign_out_others() -> Response:
    """End every session but this one."""
    with transaction():
        signins.end_all(me(), but=this_sign_in())
    flash(_("Other browsers are signed out."))
    return go(url_for("settings.index"))


@bp.post("/tokens")
@limiter.limit(tokens.MINT_LIMIT)
def make_token() -> Response:
    """Make a token and show it, this once."""
    form = TokenForm(prefix="token-")
    form.offer_choices()
    if form.validate():
        try:
            with transaction():
                token, text = tokens.create(me(), form.name.data, form.scopes.data or [], form.days.data)
        except InvalidInput as error:
            form.refuse(error)
        else:
            return render("settings/token.html", token=token, text=text)
    return _page(token=form)


@bp.get("/tokens/<int:token_id>/revoke")
def revoke_form(token_id: int) -> Response:
    """Ask whether it is meant."""
    token = tokens.get(me(), token_id)
    return render(
        "confirm.html",
        title=_("Revoke the token %(name)s?", name=token.name),
        lead=_("Programs that use it are refused from then on. This cannot be undone."),
        action=url_for("settings.revoke", token_id=token.id),
        button=_("Revoke token"),
        back_url=url_for("settings.index", _anchor="tokens"),
        danger=True,
    )


@bp.post("/tokens/<int:token_id>/revoke")
def revoke(token_id: int) -> Response:
    """End a token."""
    with transaction():
        token = tokens.revoke(me(), token_id)
    flash(_("Token %(name)s revoked.", name=token.name))
    return go(url_for("settings.index"))


def _page(**sent: PageForm) -> Response:
    """The page, with the form that was sent and refused in place of a fresh one."""
    forms: dict[str, Any] = {
        "profile": ProfileForm(formdata=None, obj=me(), prefix="profile-"),
        "password": PasswordForm(formdata=None, prefix="password-"),
        "token": TokenForm(formdata=None, prefix="token-"),
    }
    forms["profile"].offer_choices()
    forms["token"].offer_choices()
    forms |= sent
    return render(
        "settings/index.html",
        status=422 if sent else 200,
        errors_found=bool(sent),
        forms_by_name=forms,
        refused=next(iter(sent.values()), None),
        tokens=tokens.list_of(me()),
        moment_now=clock.now(),
    )
