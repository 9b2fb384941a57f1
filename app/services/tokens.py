"""API tokens: `berth_<id>_<43 characters>`. Shown once; what is stored is the SHA-256 of its secret part.

Scopes: `read` sees what its person sees, `book` also makes and changes bookings, `admin` also acts with the person's
admin role (without it an admin's token is an ordinary person's). No token can make tokens or change people.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import bindparam, func, select, update
from sqlalchemy.orm.attributes import set_committed_value

from app import clock
from app.errors import DomainError, InvalidInput, NotAllowed, NotFound, RuleRefused
from app.extensions import db
from app.language import gettext as _
from app.models import ApiToken, Role, User, UserState
from app.services import audit

READ, BOOK, ADMIN = "read", "book", "admin"
SCOPES = (READ, BOOK, ADMIN)
DEFAULT_DAYS = 90
MOST_DAYS = 365
MOST_TOKENS = 50  # in use at once, of one person
MINT_LIMIT = "10 per hour"  # for the page that makes tokens
NAME_LENGTH = 64

_FORM = re.compile(r"berth_([0-9]{1,18})_([A-Za-z0-9_-]{43})")
_LONGEST = 80
_TOUCH_EVERY = timedelta(minutes=1)
_BY_ID = (
    select(User, ApiToken.token_hash, ApiToken.scopes, ApiToken.expires_at, ApiToken.last_used_at)
    .join(User, User.id == ApiToken.user_id)
    .where(ApiToken.id == bindparam("token_id"), ApiToken.revoked_at.is_(None))
)


class BadToken(DomainError):
    """No token, or none that opens anything; which of the reasons it is stays unsaid."""

    code = "token"


@dataclass(frozen=True)
class Bearer:
    """Who a token speaks for, and what it may do. `stale`: its last use should be written down (see `touch`)."""

    user: User
    token_id: int
    scopes: frozenset[str]
    stale: bool

    def require(self, scope: str) -> None:
        """Refuse what the token was not made for."""
        if scope not in self.scopes:
            raise NotAllowed(
                _("This token lacks the scope %(scope)s.", scope=scope), _("Make a token that has it."), scope=scope
            )


def create(
    user: User, name: str, scopes: Iterable[str] = (READ,), days: int = DEFAULT_DAYS, *, actor: str = ""
) -> tuple[ApiToken, str]:
    """Make a token and return it with its text, which nobody can see again. `actor`: who makes it, "" for the person.

    Raises InvalidInput or RuleRefused."""
    wanted = frozenset(scopes)
    _check(user, name, wanted, days)
    now = clock.now()
    secret = secrets.token_urlsafe(32)
    token = ApiToken(
        user_id=user.id,
        name=name.strip(),
        token_hash=_digest(secret),
        scopes=" ".join(scope for scope in SCOPES if scope in wanted),
        created_at=now,
        expires_at=now + timedelta(days=days),
    )
    db.session.add(token)
    db.session.flush()
    who = actor or user.username
    audit.record(who, "token.created", f"token:{token.id}", name=token.name, scopes=token.scopes)
    return token, f"berth_{token.id}_{secret}"


def list_of(user: User) -> list[ApiToken]:
    """A person's tokens that have not been revoked, newest first."""
    query = select(ApiToken).where(ApiToken.user_id == user.id, ApiToken.revoked_at.is_(None))
    return list(db.session.scalars(query.order_by(ApiToken.id.desc())))


def get(user: User, token_id: int) -> ApiToken:
    """A token of one's own. Raises NotFound, for somebody else's too."""
    token = db.session.scalar(select(ApiToken).where(ApiToken.id == token_id, ApiToken.user_id == user.id))
    if token is None:
        raise NotFound(_("There is no token %(id)s of yours.", id=token_id))
    return token


def revoke(user: User, token_id: int) -> ApiToken:
    """End a token of one's own, at once; twice is fine. Raises NotFound for somebody else's."""
    token = get(user, token_id)
    if token.revoked_at is None:
        token.revoked_at = clock.now()
        db.session.flush()
        audit.record(user.username, "token.revoked", f"token:{token.id}", name=token.name)
    return token


def authenticate(text: str) -> Bearer:
    """Whose token this is, in one query. Raises BadToken, the same for whatever is wrong with it or its person."""
    match = _FORM.fullmatch(text) if len(text) <= _LONGEST else None
    row = db.session.execute(_BY_ID, {"token_id": int(match[1])}).one_or_none() if match else None
    now = clock.now()
    if match is None or row is None:
        raise refused()
    user, token_hash, scopes, expires_at, last_used_at = row
    known = hmac.compare_digest(token_hash, _digest(match[2]))
    if not known or expires_at <= now or user.state != UserState.ACTIVE:
        raise refused()
    granted = frozenset(scopes.split())
    if ADMIN not in granted:
        # In this session only, and not a change that a flush would write: the role is not the token's to use.
        set_committed_value(user, "role", Role.USER)
    stale = last_used_at is None or now - last_used_at >= _TOUCH_EVERY
    return Bearer(user, int(match[1]), granted, stale)


def touch(token_id: int) -> None:
    """Write down that a token was used; not more than once a minute, whoever asks."""
    now = clock.now()
    unseen = (ApiToken.last_used_at.is_(None)) | (ApiToken.last_used_at <= now - _TOUCH_EVERY)
    statement = update(ApiToken).where(ApiToken.id == token_id, unseen).values(last_used_at=now)
    db.session.execute(statement, execution_options={"synchronize_session": False})


def refused() -> BadToken:
    """The one answer to a missing or useless token."""
    return BadToken(
        _("This needs a valid API token."),
        _('Send "Authorization: Bearer TOKEN"; make a token under Settings, or ask an admin.'),
    )


def _check(user: User, name: str, scopes: frozenset[str], days: int) -> None:
    if not name.strip() or len(name.strip()) > NAME_LENGTH or any(ord(character) < 32 for character in name):
        raise InvalidInput(
            _("Give the token a name of one line, %(max)s characters at most.", max=NAME_LENGTH), field="name"
        )
    if not scopes or not scopes <= set(SCOPES):
        raise InvalidInput(_("Choose at least one of the scopes."), field="scopes")
    if ADMIN in scopes and not user.is_admin:
        raise InvalidInput(_("Only an admin's token can have the scope admin."), field="scopes")
    if not 1 <= days <= MOST_DAYS:
        raise InvalidInput(_("A token may live from 1 to %(max)s days.", max=MOST_DAYS), field="days")
    live = select(func.count()).where(
        ApiToken.user_id == user.id, ApiToken.revoked_at.is_(None), ApiToken.expires_at > clock.now()
    )
    if (db.session.scalar(live) or 0) >= MOST_TOKENS:
        raise RuleRefused(
            _("You have %(max)s tokens already.", max=MOST_TOKENS), _("Revoke one that you do not need."), rule="tokens"
        )


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
