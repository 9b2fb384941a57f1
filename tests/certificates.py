"""Certificates for tests, and what openssl says of a signed .rdp file."""

from __future__ import annotations

import base64
import struct
import subprocess
from datetime import timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from app import clock


def certificate(folder: Path, name: str = "Lab", days: int = 365) -> tuple[Path, Path]:
    """Files with a self-signed certificate that is valid for so many days from yesterday on, and its key."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    who = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    begin = clock.now() - timedelta(days=1)
    made = (
        x509.CertificateBuilder()
        .subject_name(who)
        .issuer_name(who)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder.mkdir(parents=True, exist_ok=True)
    cert_file, key_file = folder / "rdp.crt", folder / "rdp.key"
    cert_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8
    key_file.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    return cert_file, key_file


def verified(text: str, cert: Path, folder: Path) -> list[str]:
    """The names that the file says are signed, once openssl has found that its settings of these names are, by this
    certificate. Raises CalledProcessError for a file that is not signed so.

    Read as a client does: the names of the list, in its order, are looked up in the file."""
    lines = text.split("\r\n")
    assert lines.pop() == ""
    values = {line.partition(":")[0].replace(" ", "").lower(): line for line in lines}
    scope = values["signscope"].removeprefix("signscope:s:").split(",")
    signed = [values[name.replace(" ", "").lower()] for name in scope] + [values["signscope"]]
    message = "\r\n".join(signed) + "\r\n\0"
    raw = base64.b64decode(values["signature"].removeprefix("signature:s:"), validate=True)
    head, seal = raw[:12], raw[12:]
    assert head == b"\x01\x00\x01\x00\x01\x00\x00\x00" + struct.pack("<I", len(seal))
    (folder / "message").write_bytes(message.encode("utf-16-le"))
    (folder / "seal").write_bytes(seal)
    command = ["openssl", "cms", "-verify", "-binary", "-inform", "DER", "-in", "seal", "-content", "message"]
    command += ["-CAfile", str(cert), "-purpose", "any", "-out", "said"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=20)
    assert (folder / "said").read_bytes() == (folder / "message").read_bytes()
    return scope
