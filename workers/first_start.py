"""What a new installation begins with: an admin with a password that is shown, and hosts to book GPUs on."""

from __future__ import annotations

import logging
import os
import re
import secrets
from pathlib import Path

from sqlalchemy import select

from app.config import Settings
from app.drivers.base import DriverError, LxdDriver
from app.drivers.connect import connect
from app.extensions import db, transaction
from app.models import User
from app.services import accounts, audit, inventory

log = logging.getLogger(__name__)

ADMIN = "admin"
HOURS = 100  # GPU-hours a month for the first admin, to try it out with
SIMULATED = ("sim1", "sim2")
SOCKETS = ("/var/snap/lxd/common/lxd/unix.socket", "/var/lib/lxd/unix.socket")


def password_file(settings: Settings) -> Path:
    """Where the first admin's password is kept until it is changed."""
    return settings.data_dir / "admin-password"


def first_admin(settings: Settings) -> str:
    """Make the first admin if there is nobody yet; returns the new password, or "". Needs an app context."""
    with transaction():
        if db.session.scalar(select(User.id).limit(1)) is not None:
            return ""
        password = "-".join(secrets.token_hex(2) for _ in range(5))
        _write_private(password_file(settings), password + "\n")  # first: a password nobody knows helps nobody
        accounts.add(ADMIN, password, actor=audit.SYSTEM, zone=settings.zone, admin=True, hours=HOURS)
    return password


def forget_changed_password(settings: Settings) -> None:
    """Remove the kept password once it is no longer the admin's. Needs an app context."""
    path = password_file(settings)
    if path.exists():
        with transaction():
            if accounts.authenticate(ADMIN, path.read_text().strip()) is None:
                path.unlink()


def first_hosts(settings: Settings) -> list[str]:
    """Take in the LXD that was named or is in reach, else simulated hosts, if there is no host yet; says what it did.

    Needs an app context. An LXD that was named and does not answer is waited for: nothing is simulated in its place.
    """
    with transaction():
        known = inventory.hosts()
    if any(host.endpoint == settings.lxd for host in known) or (known and not settings.lxd):
        return []
    for endpoint in [settings.lxd] if settings.lxd else _sockets():
        driver = connect(endpoint, "first", settings.data_dir)
        try:
            name = _host_name(driver.server().name, {host.name for host in known})
            _add(settings, name, endpoint, driver)
        except DriverError as error:
            log.warning("LXD at %s: %s", endpoint, error)
            continue
        return [f"{name}: the LXD at {endpoint}"]
    if settings.lxd:
        return []
    for name in SIMULATED:
        _add(settings, name, f"sim:{name}", connect("sim:", name, settings.data_dir))
    return ["No LXD answers here, so these hosts are simulated: " + ", ".join(SIMULATED)]


def _add(settings: Settings, name: str, endpoint: str, driver: LxdDriver) -> None:
    with transaction():
        inventory.add_host(audit.SYSTEM, name, endpoint, driver)
    log.debug("host %s added below %s", name, settings.data_dir)


def _sockets() -> list[str]:
    """Where LXD listens on this machine, if it does and we may speak to it."""
    own = os.environ.get("LXD_DIR")
    candidates = ([f"{own}/unix.socket"] if own else []) + list(SOCKETS)
    return [path for path in candidates if os.access(path, os.R_OK | os.W_OK)]


def _host_name(server: str, taken: set[str]) -> str:
    """A host's name from LXD's name for itself."""
    name = re.sub(r"[^a-z0-9-]+", "-", server.lower()).strip("-")[:60] or "host"
    return name if name not in taken else next(f"{name}-{n}" for n in range(2, 1000) if f"{name}-{n}" not in taken)


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
