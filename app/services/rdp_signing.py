"""Signing .rdp files, so that Windows names the publisher in place of warning of an unknown one.

The format is that of Microsoft's rdpsign: a list of the settings that are signed, and over them, in UTF-16, a detached
PKCS #7 signature behind a head of twelve bytes.
"""

from __future__ import annotations

import base64
import struct
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.hazmat.primitives.serialization.pkcs7 import PKCS7Options, PKCS7SignatureBuilder
from cryptography.x509.oid import NameOID

from app import clock

LARGEST = 1 << 18  # bytes of a certificate with its chain, or of a key
SOON = timedelta(days=30)
# The settings that clients take for worth signing, of those in our files, by the names that the list has them under,
# and in its order.
_SIGNED = {
    "full address": "Full Address",
    "alternate full address": "Alternate Full Address",
    "autoreconnection enabled": "AutoReconnection Enabled",
    "prompt for credentials": "Prompt For Credentials",
    "authentication level": "Authentication Level",
    "audiomode": "AudioMode",
    "redirectdrives": "RedirectDrives",
    "redirectprinters": "RedirectPrinters",
    "redirectcomports": "RedirectCOMPorts",
    "redirectsmartcards": "RedirectSmartCards",
    "redirectclipboard": "RedirectClipboard",
    "drivestoredirect": "DrivesToRedirect",
}


class CannotSign(Exception):
    """The certificate and key cannot be used: why, and what to do."""

    def __init__(self, why: str, todo: str) -> None:
        super().__init__(why)
        self.todo = todo


@dataclass(frozen=True)
class Signer:
    """A certificate that is valid now, with its key and what leads from it to one that people's computers trust."""

    certificate: x509.Certificate
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
    chain: tuple[x509.Certificate, ...]

    @property
    def name(self) -> str:
        """Who signs, as Windows shows it."""
        found = self.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return str(found[0].value) if found else self.certificate.subject.rfc4514_string()

    @property
    def ends(self) -> datetime:
        """Until when the certificate is valid."""
        return self.certificate.not_valid_after_utc

    def sign(self, text: str) -> str:
        """The file's text (a setting a line, CRLF) with its signature."""
        lines = text.splitlines()
        address = next(line for line in lines if line.startswith("full address:s:"))
        lines.append(f"alternate {address}")  # a client takes it before the other one: nobody may add it
        by_name = {line.partition(":")[0]: line for line in lines}
        scope = [name for name in _SIGNED if name in by_name]
        lines_signed = [by_name[name] for name in scope]
        lines_signed.append("signscope:s:" + ",".join(_SIGNED[name] for name in scope))
        message = "".join(f"{line}\r\n" for line in lines_signed) + "\0"
        seal = self._seal(message.encode("utf-16-le"))
        head = struct.pack("<III", 0x00010001, 1, len(seal))
        lines += [lines_signed[-1], "signature:s:" + base64.b64encode(head + seal).decode()]
        return "".join(f"{line}\r\n" for line in lines)

    def _seal(self, message: bytes) -> bytes:
        builder = PKCS7SignatureBuilder().set_data(message).add_signer(self.certificate, self.key, hashes.SHA256())
        for certificate in self.chain:
            builder = builder.add_certificate(certificate)
        options = [PKCS7Options.DetachedSignature, PKCS7Options.Binary, PKCS7Options.NoAttributes]
        return builder.sign(Encoding.DER, options)


def load(cert: str, key: str) -> Signer:
    """The signer that these two files make; PEM, the certificate first and its chain behind it. Raises CannotSign."""
    if not (cert and key):
        lacks = "BERTH_RDP_KEY" if cert else "BERTH_RDP_CERT"
        raise CannotSign(f"{lacks} is not set", "Set both BERTH_RDP_CERT and BERTH_RDP_KEY, or neither.")
    try:
        found = x509.load_pem_x509_certificates(_read(cert))
    except ValueError as error:
        raise CannotSign(f"{cert} holds no certificate in PEM", "See BERTH_RDP_CERT.") from error
    try:
        private = load_pem_private_key(_read(key), None)
    except (ValueError, TypeError) as error:  # TypeError: it has a password
        raise CannotSign(f"{key} holds no key in PEM without a password", "See BERTH_RDP_KEY.") from error
    if not isinstance(private, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise CannotSign(f"{key} is neither an RSA nor an EC key", "Take another kind of certificate.")
    form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    if private.public_key().public_bytes(*form) != found[0].public_key().public_bytes(*form):
        raise CannotSign(f"{key} is not the key of {cert}", "Put the certificate that belongs to the key first in it.")
    if not found[0].not_valid_before_utc <= clock.now() < found[0].not_valid_after_utc:
        raise CannotSign(
            f"{cert} is valid from {found[0].not_valid_before_utc:%Y-%m-%d} to {found[0].not_valid_after_utc:%Y-%m-%d}",
            "Renew it.",
        )
    return Signer(found[0], private, tuple(found[1:]))


def _read(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return file.read(LARGEST)
    except OSError as error:
        why = f"{path} cannot be read ({error.strerror})"
        raise CannotSign(why, "Let the portal's user read it, and nobody else.") from error
