"""The .rdp file: what a Remote Desktop client needs, a property a line. Nothing in it is a person's free text."""

from __future__ import annotations

import logging
import re

from app.extensions import settings
from app.services import rdp_signing

log = logging.getLogger(__name__)

# As MS-RDPBCGR's clients read them. The password is asked for and not in the file; no drive, printer or port of one's
# own computer is handed to the machine; a certificate that cannot be checked is asked about (2).
_SETTINGS = """\
prompt for credentials:i:1
authentication level:i:2
screen mode id:i:1
desktopwidth:i:1600
desktopheight:i:900
dynamic resolution:i:1
smart sizing:i:1
session bpp:i:32
use multimon:i:0
redirectclipboard:i:1
redirectdrives:i:0
drivestoredirect:s:
redirectprinters:i:0
redirectcomports:i:0
redirectsmartcards:i:0
audiomode:i:0
audiocapturemode:i:0
networkautodetect:i:1
compression:i:1
autoreconnection enabled:i:1
"""
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,253}[A-Za-z0-9])?|\[[0-9a-fA-F:.]{2,45}\]")
_LOGIN = re.compile(r"[a-z][a-z0-9-]{0,31}")


def rdp_file(host: str, port: int, login: str | None, signer: rdp_signing.Signer | None = None) -> str:
    """The file's text, signed where there is a signer; without a login the client asks for one. Raises ValueError for
    what could be read as more than one property."""
    known = login is None or _LOGIN.fullmatch(login)
    if not (_HOST.fullmatch(host) and known and 0 < port < 65536):
        raise ValueError(f"not an address and a login: {host!r} {port!r} {login!r}")
    who = [] if login is None else [f"username:s:{login}"]
    lines = [f"full address:s:{host}:{port}", *who, *_SETTINGS.splitlines()]
    text = "".join(f"{line}\r\n" for line in lines)
    return signer.sign(text) if signer else text


def signer() -> rdp_signing.Signer | None:
    """Who signs the files; None where nobody is to, or the certificate cannot be used: `berth doctor` says why."""
    if not (settings().rdp_cert or settings().rdp_key):
        return None
    try:
        return rdp_signing.load(settings().rdp_cert, settings().rdp_key)
    except rdp_signing.CannotSign as error:
        log.warning(".rdp files are not signed: %s", error)
        return None
