"""Passwords: argon2id, long rather than odd, and none that everybody tries first."""

from __future__ import annotations

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from app.errors import InvalidInput
from app.language import gettext as _

SHORTEST, LONGEST = 12, 128
# The commonest that are long enough to pass otherwise, without the digits and signs that people put after them.
COMMON = frozenset(
    """
    password passwordpassword passwort passw0rd p@ssword p@ssw0rd qwertyuiop qwertyuiopasdf qwertyqwerty asdfghjkl
    asdfghjkllkjhg zxcvbnm zxcvbnmasdf 1q2w3e4r5t6y 1qaz2wsx3edc qazwsxedc qazwsxedcrfv letmein letmeinletmein
    iloveyou iloveyouiloveyou administrator adminadmin adminadminadmin rootroot rootrootroot welcome welcomewelcome
    changeme changemechangeme changemeplease trustno1 sunshine princess football baseball superman dragon monkey
    master masterkey shadow correcthorsebatterystaple correct-horse-battery-staple abcdefghijkl abcabcabcabc
    testtesttest testpassword defaultpassword mypassword thisismypassword secretsecret topsecret verysecret
    berthberth berthberthberth nvidianvidia gpugpugpugpu labpassword woaini woaini1314 woaini5201314 a1b2c3d4e5f6
    """.split()  # noqa: SIM905 - a list of words reads better so
)
SEQUENCES = ("0123456789012345678901234567890", "9876543210987654321098765432109", "abcdefghijklmnopqrstuvwxyz")

_hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
_nobody = _hasher.hash("the password of nobody")  # so that an unknown name takes as long as a wrong password


def hashed(password: str, username: str) -> str:
    """The hash to store. Raises InvalidInput for a password that is too short, too long or too easily guessed."""
    check(password, username)
    return _hasher.hash(password)


def check(password: str, username: str) -> None:
    """Refuse what is too short, too long or among the first that anybody tries."""
    if len(password) < SHORTEST:
        raise InvalidInput(_("Use %(count)s characters or more.", count=SHORTEST), field="password")
    if len(password) > LONGEST:
        raise InvalidInput(_("Use %(count)s characters at most.", count=LONGEST), field="password")
    plain = password.lower()
    bare = plain.rstrip("0123456789!?.@#$%&*-_+")
    if username.lower() in plain:
        raise InvalidInput(_("Leave your username out of the password."), field="password")
    if len(set(plain)) < 5 or bare in COMMON or plain in COMMON or any(plain in line for line in SEQUENCES):
        raise InvalidInput(
            _("This password is one of the first that anybody tries. Use a few words of your own."), field="password"
        )


def matches(password: str, stored: str | None) -> bool:
    """Whether the password belongs to the stored hash; takes as long for a person who does not exist."""
    try:
        return _hasher.verify(stored or _nobody, password[: LONGEST + 1]) and stored is not None
    except (VerificationError, InvalidHashError):
        return False


def rehashed(password: str, stored: str) -> str | None:
    """A new hash where the stored one was made with other settings than today's."""
    return _hasher.hash(password) if _hasher.check_needs_rehash(stored) else None
