"""Secrets that Berth must be able to read again: encrypted with a key that is not in the database."""

from __future__ import annotations

import base64

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


def seal(secret_key: str, text: str) -> str:
    """Encrypt. `secret_key`: the installation's, that signs cookies too."""
    return _box(secret_key).encrypt(text.encode()).decode()


def unseal(secret_key: str, sealed: str, *, within: int | None = None) -> str | None:
    """What was sealed; None if that was with another key, or not within so many seconds: then it has to be given
    anew."""
    try:
        return _box(secret_key).decrypt(sealed.encode(), within).decode()
    except (InvalidToken, ValueError):  # what is no ASCII is no token either
        return None


def _box(secret_key: str) -> Fernet:
    derived = HKDF(SHA256(), 32, salt=None, info=b"berth: addresses of channels").derive(secret_key.encode())
    return Fernet(base64.urlsafe_b64encode(derived))
