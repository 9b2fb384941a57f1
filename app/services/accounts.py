"""People: they ask for an account, an admin decides, and from then on they sign in and own quota."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import timedelta
from zoneinfo import ZoneInfo

from sqlalchemy import exists, func, select
from sqlalchemy.orm import joinedload

from app import clock
from app.errors import Conflict, InvalidInput, NotAllowed, NotFound, RuleRefused
from app.extensions import db
from app.language import gettext as _
from app.models import Account, Booking, Role, User, UserState
from app.services import audit, passwords, quota, signins

USERNAME = re.compile(r"[a-z][a-z0-9-]{1,30}")
# The username is also the login inside the machines, and the actor in the audit.
RESERVED = frozenset(
    """
    root daemon bin sys sync games man lp mail news uucp proxy www-data backup list irc gnats nobody messagebus sshd
    xrdp polkitd systemd-network systemd-resolve systemd-timesync system cli agent idle
    """.split()  # noqa: SIM905 - a list of words reads better so
)
UNDO_WITHIN = timedelta(minutes=10)


def register(username: str, password: str, *, full_name: str, email: str, reason: str = "") -> User:
    """Ask for an account; it waits for an admin. Raises InvalidInput naming the field."""
    user = _new(username, password, full_name=full_name, email=email, reason=reason)
    audit.record(user.username, "user.registered", _target(user))
    return user


def add(
    username: str,
    password: str,
    *,
    actor: str,
    zone: ZoneInfo,
    admin: bool = False,
    full_name: str = "",
    email: str = "",
    hours: float = 0,
) -> User:
    """Make an account that needs no approval, with `hours` of quota a month (0: none yet)."""
    user = _new(username, password, full_name=full_name, email=email)
    user.role = Role.ADMIN if admin else Role.USER
    audit.record(actor, "user.added", _target(user), role=user.role)
    _activate(user, hours, zone, actor)
    return user


def authenticate(username: str, password: str) -> User | None:
    """The person with this name and password, whatever their state; takes as long when there is none."""
    user = db.session.scalar(select(User).where(User.username == username.strip().lower()))
    if not passwords.matches(password, user.password_hash if user else None):
        return None
    assert user is not None, "nobody has no password"
    if new_hash := passwords.rehashed(password, user.password_hash):
        user.password_hash = new_hash
        db.session.flush()
    return user


def get(username: str) -> User:
    """One person with their account. Raises NotFound."""
    user = db.session.scalar(select(User).where(User.username == username).options(joinedload(User.account)))
    if user is None:
        raise NotFound(_("There is nobody called %(name)s.", name=username[:64]))
    return user


def account_of(username: str) -> Account:
    """A person's account. Raises RuleRefused while they have none."""
    account = get(username).account
    if account is None:
        raise RuleRefused(_("%(name)s has no account yet.", name=username), _("Approve this person first."))
    return account


def approve(username: str, hours: float, *, actor: str, zone: ZoneInfo, refused: bool = True) -> User:
    """Let a person in who waits, with so many hours a month; also one who was turned down, unless `refused` is False:
    for whoever decides by a list that may be older than that."""
    user = locked(username)
    if not (refused and user.state == UserState.REFUSED):
        _check_waits(user)
    _activate(user, hours, zone, actor)
    audit.record(actor, "user.approved", _target(user), hours=hours)
    return user


def can_undo_approval(user: User) -> bool:
    """Whether it is early enough to take an approval back."""
    return (
        user.state == UserState.ACTIVE
        and user.decided_at is not None
        and clock.now() - user.decided_at < UNDO_WITHIN
        and not _has_booked(user)
    )


def undo_approval(username: str, *, actor: str, zone: ZoneInfo) -> User:
    """Take an approval back within ten minutes: the person waits again, the hours are gone."""
    user = locked(username)
    if not can_undo_approval(user):
        raise RuleRefused(
            _("The approval of %(name)s cannot be undone any more.", name=user.display_name),
            _("Suspend the account instead."),
        )
    assert user.account is not None, "whoever is active has an account"
    quota.set_monthly(user.account, 0, zone, actor=actor)
    user.state, user.decided_at = UserState.PENDING, None
    signins.end_all(user)
    audit.record(actor, "user.approval_undone", _target(user))
    return user


def refuse(username: str, reason: str, *, actor: str) -> User:
    """Turn a request down; the person reads the reason when they sign in."""
    user = locked(username)
    _check_waits(user)
    if not reason.strip():
        raise InvalidInput(_("Say why: %(name)s will read it.", name=user.display_name), field="reason")
    user.state, user.decided_at = UserState.REFUSED, clock.now()
    audit.record(actor, "user.refused", _target(user), reason=reason.strip()[:500])
    return user


def refusal_reason(user: User) -> str:
    """Why a person was refused, in the admin's words."""
    events = audit.recent(target=_target(user))
    return next((str(event.details.get("reason", "")) for event in events if event.action == "user.refused"), "")


def suspend(username: str, *, actor: str) -> User:
    """Shut a person out: every browser is signed out at once and every token refused. Bookings stay as they are."""
    user = locked(username)
    _refuse_oneself(user, actor)
    if user.state != UserState.ACTIVE:
        raise Conflict(_("%(name)s is not active.", name=user.display_name))
    user.state = UserState.DISABLED
    signins.end_all(user)
    audit.record(actor, "user.suspended", _target(user))
    return user


def restore(username: str, *, actor: str) -> User:
    """Let a suspended person in again."""
    user = locked(username)
    if user.state != UserState.DISABLED:
        raise Conflict(_("%(name)s is not suspended.", name=user.display_name))
    user.state = UserState.ACTIVE
    audit.record(actor, "user.restored", _target(user))
    return user


def set_role(username: str, role: Role, *, actor: str) -> User:
    """Make a person an admin, or no longer one; they sign in anew. Nobody can drop themselves, so one admin stays."""
    user = locked(username)
    _refuse_oneself(user, actor)
    if user.role != role:
        user.role = role
        signins.end_all(user)
        audit.record(actor, "user.role_changed", _target(user), role=role)
    return user


def _new(username: str, password: str, *, full_name: str = "", email: str = "", reason: str = "") -> User:
    username = username.strip()
    if not USERNAME.fullmatch(username):
        raise InvalidInput(
            _("Use 2 to 31 small letters, digits and hyphens, starting with a letter."), field="username"
        )
    if username in RESERVED or db.session.scalar(select(exists().where(User.username == username))):
        raise InvalidInput(_("This username is taken. Choose another one."), field="username")
    user = User(
        username=username,
        full_name=one_line(full_name, "full_name", 120),
        email=one_line(email, "email", 254),
        reason=reason.strip()[:500],
        password_hash=passwords.hashed(password, username),
        role=Role.USER,
        state=UserState.PENDING,
    )
    db.session.add(user)
    db.session.flush()
    return user


def one_line(text: str, field: str, most: int) -> str:
    """The text without space around it. Raises InvalidInput for control characters or too many characters."""
    text = text.strip()
    if len(text) > most or any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise InvalidInput(_("Use one line of at most %(count)s characters.", count=most), field=field)
    return text


def _activate(user: User, hours: float, zone: ZoneInfo, actor: str) -> None:
    if user.account_id is None:
        user.account = db.session.scalar(select(Account).where(Account.name == user.username)) or Account(
            name=user.username
        )
    user.state, user.decided_at = UserState.ACTIVE, clock.now()
    db.session.flush()
    account = db.session.get_one(Account, user.account_id)
    quota.set_monthly(account, hours, zone, actor=actor)


def locked(username: str) -> User:
    """The person, so that two admins who decide at once do so one after the other."""
    user = db.session.scalar(
        select(User)
        .where(User.username == username)
        .options(joinedload(User.account))
        .with_for_update(of=User)
        .execution_options(populate_existing=True)
    )
    if user is None:
        raise NotFound(_("There is nobody called %(name)s.", name=username[:64]))
    return user


def locked_all(usernames: Iterable[str]) -> list[User]:
    """Those of these people whom there are, locked in one order, so that two admins never wait for each other."""
    query = select(User).where(User.username.in_(list(usernames))).order_by(User.id).with_for_update()
    return list(db.session.scalars(query.execution_options(populate_existing=True)))


def _check_waits(user: User) -> None:
    """Raise Conflict if somebody decided about this person meanwhile."""
    if user.state != UserState.PENDING:
        raise Conflict(_("%(name)s is not waiting for approval any more.", name=user.display_name))


def _has_booked(user: User) -> bool:
    return bool(db.session.scalar(select(func.count()).select_from(Booking).where(Booking.user_id == user.id)))


def _refuse_oneself(user: User, actor: str) -> None:
    if user.username == actor:
        raise NotAllowed(_("You cannot do this to yourself."), _("Ask another admin."))


def _target(user: User) -> str:
    return f"user:{user.username}"
