"""A person's SSH keys: read strictly, kept without their comment, and written into their machines by the agents."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from sqlalchemy import select

from app import clock
from app.errors import InvalidInput, NotFound
from app.extensions import db
from app.language import gettext as _
from app.models import Host, Instance, SshKey, User
from app.services import audit

LONGEST = 8192  # characters; an RSA key of 16384 bits has some 2800
MOST = 20  # keys of one person
NAME_LENGTH = 64
LEAST_RSA = 2048  # bits; 3072 are advised
TYPES = frozenset({"ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa"})
_BLOB = re.compile(r"[A-Za-z0-9+/]+={0,2}")


def of_user(user_id: int) -> list[SshKey]:
    """A person's keys, oldest first."""
    return list(db.session.scalars(select(SshKey).where(SshKey.user_id == user_id).order_by(SshKey.id)))


def add(actor: str, user: User, text: str, name: str = "") -> SshKey:
    """Add a public key; one that is there already is taken as it is. Raises InvalidInput."""
    line, comment = parse(text)
    db.session.execute(select(User.id).where(User.id == user.id).with_for_update())
    known = {key.fingerprint: key for key in of_user(user.id)}
    if (found := known.get(fingerprint(line))) is not None:
        return found
    if len(known) >= MOST:
        raise InvalidInput(
            _("You have %(count)s keys, and that is the most.", count=MOST), _("Remove one."), field="key"
        )
    shown = _plain(name) or _plain(comment) or line.partition(" ")[0]
    key = SshKey(user_id=user.id, name=shown[:NAME_LENGTH], text=line, fingerprint=fingerprint(line))
    db.session.add(key)
    _changed(user)
    audit.record(actor, "ssh_key.added", f"user:{user.username}", fingerprint=key.fingerprint)
    return key


def get(user: User, key_id: int) -> SshKey:
    """One of a person's own keys. Raises NotFound."""
    key = db.session.scalar(select(SshKey).where(SshKey.id == key_id, SshKey.user_id == user.id))
    if key is None:
        raise NotFound(_("You have no such key."))
    return key


def remove(actor: str, user: User, key_id: int) -> SshKey:
    """Take a key away; the agents take it out of the machines. Raises NotFound."""
    key = get(user, key_id)
    db.session.delete(key)
    _changed(user)
    audit.record(actor, "ssh_key.removed", f"user:{user.username}", fingerprint=key.fingerprint)
    return key


def hosts_of(user_id: int) -> list[str]:
    """The hosts whose agents have to hear of a change."""
    query = (
        select(Host.name).join(Instance).where(Instance.owner_id == user_id, Instance.deleted_at.is_(None)).distinct()
    )
    return list(db.session.scalars(query))


def parse(text: str) -> tuple[str, str]:
    """Type and key as OpenSSH writes them, and the comment. Raises InvalidInput with the reason."""
    text = text.strip()
    if "PRIVATE KEY" in text:
        raise _wrong(_("This is a private key. Keep it to yourself, and make a new one: it has been shown."))
    if not text or len(text) > LONGEST:
        raise _wrong(_("Paste the content of a public key file, such as ~/.ssh/id_ed25519.pub."))
    if len(text.splitlines()) > 1:
        raise _wrong(_("A public key is one line. Add one key at a time."))
    kind, blob, comment = ([*text.split(None, 2), "", ""])[:3]
    if kind not in TYPES:
        if any(word in TYPES for word in text.split()):
            raise _wrong(_("Options before the key are not taken. Begin with the type, such as ssh-ed25519."))
        raise _wrong(_("The line must begin with ssh-ed25519, ecdsa-sha2-nistp256, -384, -521 or ssh-rsa."))
    _check(kind, blob)
    return f"{kind} {blob}", comment


def fingerprint(line: str) -> str:
    """SHA256:… of a key, as ssh-keygen -l prints it."""
    digest = hashlib.sha256(base64.b64decode(line.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def _check(kind: str, blob: str) -> None:
    damaged = _wrong(_("The key is damaged. Copy the whole line once more."))
    if not _BLOB.fullmatch(blob):
        raise damaged
    try:
        key = load_ssh_public_key(f"{kind} {blob}".encode())
        base64.b64decode(blob, validate=True)
    except (ValueError, UnsupportedAlgorithm, binascii.Error) as error:
        raise damaged from error
    if isinstance(key, RSAPublicKey):
        if key.key_size < LEAST_RSA:
            raise _wrong(_("An RSA key needs %(bits)s bits at least; 3072 or ed25519 are better.", bits=LEAST_RSA))
    elif not isinstance(key, Ed25519PublicKey | EllipticCurvePublicKey):
        raise damaged


def _changed(user: User) -> None:
    user.keys_changed_at = clock.now()
    db.session.flush()


def _wrong(text: str) -> InvalidInput:
    return InvalidInput(text, field="key")


def _plain(text: str) -> str:
    return "".join(letter for letter in text if letter.isprintable()).strip()
