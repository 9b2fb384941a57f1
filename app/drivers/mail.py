"""E-mail, through the lab's own mail server."""

from __future__ import annotations

import smtplib
import ssl
from dataclasses import dataclass
from email.header import Header
from email.mime.text import MIMEText
from email.utils import formataddr, formatdate, parseaddr
from urllib.parse import unquote, urlsplit

from app.drivers.base import DriverError

TIMEOUT = 10.0  # seconds for each answer


class Rejected(DriverError):
    """The server will never take this message: to try again is of no use."""


@dataclass(frozen=True)
class Letter:
    """What is sent. `number` makes its Message-ID: sent twice it can be told to be one."""

    to: str
    title: str
    text: str
    number: str


def send(server: str, sender: str, letter: Letter) -> None:
    """Hand a letter to the server (`smtp://` or `smtps://`, with user and password where it wants them).

    Raises DriverError, or Rejected, whose text is a code: `mail_server` (it could not be spoken to),
    `mail_unencrypted` (it wants a password in the open), `smtp_NNN` (its answer).
    """
    parts = urlsplit(server)
    try:
        with _connected(parts.scheme, parts.hostname or "", parts.port) as connection:
            if parts.username:
                _refuse_open(connection, parts.hostname or "")
                connection.login(unquote(parts.username), unquote(parts.password or ""))
            connection.send_message(_composed(sender, letter))
    except smtplib.SMTPRecipientsRefused as error:
        code = next(iter(error.recipients.values()))[0]
        raise (Rejected if code >= 500 else DriverError)(f"smtp_{code}") from error
    except smtplib.SMTPResponseException as error:
        final = error.smtp_code >= 500 and not isinstance(error, smtplib.SMTPAuthenticationError)
        raise (Rejected if final else DriverError)(f"smtp_{error.smtp_code}") from error
    except (smtplib.SMTPException, OSError, ValueError) as error:
        raise DriverError("mail_server") from error


def _connected(scheme: str, host: str, port: int | None) -> smtplib.SMTP:
    """A connection, encrypted where the server can."""
    context = ssl.create_default_context()
    if scheme == "smtps":
        return smtplib.SMTP_SSL(host, port or 465, timeout=TIMEOUT, context=context)
    connection = smtplib.SMTP(host, port or 25, timeout=TIMEOUT)
    connection.ehlo_or_helo_if_needed()
    if connection.has_extn("starttls"):
        connection.starttls(context=context)
    return connection


def _refuse_open(connection: smtplib.SMTP, host: str) -> None:
    """No password goes over the network for everybody to read."""
    if not isinstance(connection.sock, ssl.SSLSocket) and host not in {"127.0.0.1", "::1", "localhost"}:
        raise DriverError("mail_unencrypted")


def _composed(sender: str, letter: Letter) -> MIMEText:
    """Not an EmailMessage: where it folds a Chinese subject, it loses the spaces."""
    if not (letter.to + letter.title).isprintable():
        raise Rejected("not_printable")
    message = MIMEText(letter.text, "plain", "utf-8")
    domain = parseaddr(sender)[1].rpartition("@")[2]
    message["From"], message["To"] = formataddr(parseaddr(sender)), letter.to
    message["Subject"] = Header(letter.title, "utf-8")  # type: ignore[assignment]
    message["Date"], message["Message-ID"] = formatdate(), f"<berth.{letter.number}@{domain}>"
    message["Auto-Submitted"] = "auto-generated"
    return message
