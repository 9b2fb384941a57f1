"""Sign in, sign out, ask for an account, choose a language."""

from __future__ import annotations

from urllib.parse import urlsplit

from flask import Blueprint, Response, make_response, request, url_for
from flask_limiter.util import get_remote_address
from wtforms import EmailField, PasswordField, StringField, TextAreaField
from wtforms.validators import Email

from app.errors import InvalidInput
from app.extensions import limiter, transaction
from app.language import gettext as _
from app.language import lazy_gettext as _l
from app.models import User, UserState
from app.services import accounts, signins
from app.web import locale, sessions
from app.web.forms import PageForm, at_most, required
from app.web.render import go, render
from app.web.security import public

bp = Blueprint("auth", __name__)


class LoginForm(PageForm):
    """Who, and the proof."""

    username = StringField(_l("Username"), [required(), at_most(64)])
    password = PasswordField(_l("Password"), [required(), at_most(1024)])


class RegisterForm(PageForm):
    """What an admin needs to decide."""

    username = StringField(_l("Username"), [required()])
    full_name = StringField(_l("Full name"), [required(), at_most(120)])
    email = EmailField(
        _l("E-mail"), [required(), at_most(254), Email(message=_l("Use an address such as li.wei@example.org."))]
    )
    password = PasswordField(_l("Password"), [required()])
    reason = TextAreaField(_l("What do you need GPUs for? (optional)"), [at_most(500)])


def _per_person() -> str:
    return f"{get_remote_address()} {request.form.get('username', '').strip().lower()[:64]}"


def _failed(response: Response) -> bool:
    return response.status_code == 422  # only a wrong password counts


@bp.get("/login")
@public
def login() -> Response:
    """The sign-in page; who is signed in already goes on."""
    if sessions.viewer() is not None:
        return go(_next_url())
    return _login_page(LoginForm())


@bp.post("/login")
@public
@limiter.limit("10 per 5 minutes", key_func=_per_person, deduct_when=_failed)
@limiter.limit("100 per 5 minutes", deduct_when=_failed)
def login_post() -> Response:
    """Check name and password, then a new session; who may not come in yet reads why."""
    form = LoginForm()
    if not form.validate():
        return _login_page(form, 422)
    with transaction():
        user = accounts.authenticate(form.username.data, form.password.data)
        key = signins.begin(user) if user is not None and user.state == UserState.ACTIVE else ""
    if user is None:
        form.form_errors.append(_("Username or password is wrong."))
        return _login_page(form, 422)
    if not key:
        return _not_yet(user)
    sessions.remember(key, user)
    return go(_next_url())


@bp.post("/logout")
@public
def logout() -> Response:
    """End this browser's session."""
    if sessions.viewer() is not None:
        with transaction():
            signins.end(sessions.this_sign_in())
    sessions.forget()
    return go(url_for("auth.login"))


@bp.get("/register")
@public
def register() -> Response:
    """The form to ask for an account."""
    return render("auth/register.html", form=RegisterForm())


@bp.post("/register")
@public
@limiter.limit("5 per hour", deduct_when=lambda response: response.status_code == 200)
def register_post() -> Response:
    """Ask for an account."""
    form = RegisterForm()
    if form.validate():
        try:
            with transaction():
                user = accounts.register(
                    form.username.data.strip().lower(),
                    form.password.data,
                    full_name=form.full_name.data,
                    email=form.email.data,
                    reason=form.reason.data or "",
                )
        except InvalidInput as error:
            form.refuse(error)
        else:
            return _not_yet(user)
    return render("auth/register.html", form=form, errors_found=True, status=422)


@bp.post("/language")
@public
def language() -> Response:
    """Remember the language of this browser and, signed in, of the person."""
    choice = request.form.get("locale", "")
    answer = make_response(go(safe_url(request.form.get("next", ""))))
    if choice in locale.LANGUAGES:
        locale.remember(answer, choice)
        if (person := sessions.viewer()) is not None:
            with transaction():
                person.locale = choice
    return answer


def _login_page(form: LoginForm, status: int = 200) -> Response:
    back = safe_url(request.values.get("next", ""), otherwise="")
    return render("auth/login.html", form=form, back=back, errors_found=bool(form.errors), status=status)


def _not_yet(user: User) -> Response:
    reason = accounts.refusal_reason(user) if user.state == UserState.REFUSED else ""
    return render("auth/not_yet.html", user=user, reason=reason)


def _next_url() -> str:
    return safe_url(request.values.get("next", ""))


def safe_url(url: str, otherwise: str = "/") -> str:
    """The address if it is a path of ours, so that no link to Berth can lead on to another site."""
    parts = urlsplit(url)
    ours = url.startswith("/") and not url.startswith("//") and "\\" not in url and not parts.netloc
    plain = not any(ord(character) < 33 or ord(character) == 127 for character in url)
    return url if ours and plain and not parts.scheme else otherwise
