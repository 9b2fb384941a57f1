"""`berth doctor`: looks at everything Berth needs and says what to do about what it finds."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

import click
from sqlalchemy.exc import SQLAlchemyError

from app import clock, queue
from app.cli.base import driver_of, json_option, print_json
from app.config import PORTAL_USER, Settings
from app.drivers.base import DriverError
from app.drivers.system import System
from app.extensions import NOT_RUNNING, db, transaction
from app.models import Host
from app.schema import is_current
from app.services import alarms, checkup, findings, inventory, rdp_signing, zones
from app.services.checkup import BAD, OK, WARN, Finding, printable
from app.services.hostinit import watching

SILENT = 60  # seconds without a sign of life after which an agent counts as away
FRESH = 900  # seconds for which what an agent found last stands for what is so now
NOT_NEEDED = "no matter, since it is not offered and has no booking left"
_SIGNS = {OK: "ok  ", WARN: "warn", BAD: "FAIL"}


@click.command()
@json_option
@click.option("--strict", is_flag=True, help="Exit 1 for warnings too.")
def doctor(as_json: bool, strict: bool) -> int:
    """Look at everything, say what is wrong and how to put it right.

    Exits 1 if anything is bad: not safe, or not working. What is only advised against, or could not be seen, is a
    warning and exits 0, unless --strict is given. To see everything of a host, run it there as root.
    """
    found = list(_look(Settings.load()))
    if as_json:
        print_json([{**one.as_json(), "ok": one.ok} for one in found])
    else:
        for one in found:
            click.echo(f"{_SIGNS[one.level]} {printable(one.what)}: {printable(one.detail)}")
            if not one.ok:
                click.echo(f"     {printable(one.fix)}")
    return 1 if any(one.level == BAD or (strict and not one.ok) for one in found) else 0


def _look(given: Settings) -> Iterator[Finding]:
    yield Finding(OK, "settings", f"data in {given.data_dir}, slot {given.slot} s, zone {given.timezone}")
    yield from _signing(given)
    if not given.database_url:
        yield Finding(BAD, "database", "none", NOT_RUNNING)
        return
    from app import create_core  # noqa: PLC0415 - not needed to say that nothing runs

    with create_core(given).app_context():
        yield from _database(given)
        fix = "Start Berth, or set REDIS_URL. Without it, changes wait for the agents' next tick."
        alive = queue.reachable(given.redis_url or given.redis_agent_url)  # an agent has its own address only
        yield _good("valkey", "reachable") if alive else Finding(BAD, "valkey", "not reachable", fix)
        try:
            with transaction():
                hosts, needed = inventory.hosts(), alarms.needed_hosts()
        except SQLAlchemyError:
            return
        if not hosts:
            yield Finding(BAD, "hosts", "there are none", "Add one: berth host add NAME --lxd SOCKET_OR_URL")
        for host in hosts:
            may_be_off = host.id not in needed
            every = (*_agent(host, may_be_off), *watching.judge(System(), host.name), *_host(host, may_be_off))
            for one in every:
                yield replace(one, what=f"{host.name}: {one.what}")


def _signing(given: Settings) -> Iterator[Finding]:
    """Whether .rdp files can be signed, where they are to be."""
    if not (given.rdp_cert or given.rdp_key):
        return
    try:
        signer = rdp_signing.load(given.rdp_cert, given.rdp_key)
    except rdp_signing.CannotSign as error:
        yield Finding(BAD, "signing .rdp files", f"{error}: they go out unsigned", error.todo)
        return
    for path in (given.rdp_cert, given.rdp_key):
        if not _portal_reads(path):
            detail = f"{PORTAL_USER}, whom the portal runs as, cannot read {path}: they go out unsigned"
            yield Finding(BAD, "signing .rdp files", detail, f"chown {PORTAL_USER} {path}, where it can be reached.")
            return
    said = f"as {signer.name}, until {signer.ends:%Y-%m-%d}"
    ends_soon = signer.ends - clock.now() < rdp_signing.SOON
    yield Finding(WARN, "signing .rdp files", said, "Renew it.") if ends_soon else _good("signing .rdp files", said)


def _portal_reads(path: str) -> bool:
    """Whether the portal's own user may, where there is one: asked as that user, links and directories included."""
    try:
        user = pwd.getpwnam(PORTAL_USER)
    except KeyError:
        return True
    if os.geteuid() != 0:
        return True
    test = ["test", "-r", path]
    asked = subprocess.run(test, user=user.pw_uid, group=user.pw_gid, extra_groups=[], check=False)  # noqa: S603
    return asked.returncode == 0


def _database(given: Settings) -> Iterator[Finding]:
    try:
        current = is_current(db.engine)
        with transaction():
            skew, zone = findings.skew(), zones.written() if current else None
    except SQLAlchemyError as error:
        detail = f"not reachable ({type(error).__name__})"
        yield Finding(BAD, "database", detail, "Start Berth with `make run`, or check DATABASE_URL.")
        return
    yield _good("database", "reachable")
    fix = "Start Berth once: it brings the tables up to date."
    yield _good("schema", "up to date") if current else Finding(BAD, "schema", "not of this version", fix)
    yield checkup.clock(skew)
    if current:
        yield _zone(given.timezone, zone)


def _zone(own: str, lab: str | None) -> Finding:
    """By whose clock days and months are counted: the portal's, whatever this machine's own is."""
    if lab is None:
        return _good("zone", f"{own}, this machine's own: no portal has written the lab's down yet")
    if own == lab:
        return _good("zone", f"{lab}, the lab's")
    if not os.environ.get("BERTH_TZ"):
        return _good("zone", f"{lab}, the lab's; that of this machine, {own}, counts for nothing")
    fix = "Take it out here; or set it where the portal runs, and start that anew."
    return Finding(WARN, "zone", f"{lab}, the lab's: BERTH_TZ={own} here counts for nothing", fix)


def _agent(host: Host, may_be_off: bool) -> Iterator[Finding]:
    age = _age(host.seen_at)
    seen = "never seen" if age is None else f"seen {age} s ago"
    fix = f"Start it on {host.name}: berth agent {host.name} (or berth up)."
    good = age is not None and age <= SILENT
    yield _good("agent", seen) if good else _away(Finding(BAD, "agent", seen, fix), may_be_off)
    if host.trouble:
        yield _away(Finding(BAD, "last pass", host.trouble, "See the agent's log."), may_be_off)


def _away(found: Finding, may_be_off: bool) -> Finding:
    """What is found of a host that is away: nothing bad of one that may be switched off."""
    return _good(found.what, f"{found.detail}: {NOT_NEEDED}") if may_be_off else found


def _host(host: Host, may_be_off: bool) -> Iterator[Finding]:
    """The host as it is; where there is no way to it from here, as its agent found it a while ago."""
    try:
        facts = driver_of(host).examine()
    except DriverError as error:
        age = _age(host.checked_at)
        if age is None or age > FRESH:
            yield _away(checkup.not_examined(str(error), error.todo), may_be_off)
            return
        detail = f"no way to it from here ({error}): what follows, its agent found {age} s ago"
        yield Finding(WARN, "LXD", detail, f"Run `berth doctor` as root on {host.name} to look again.")
        yield from findings.stored(host)
        return
    with transaction():
        known = findings.known(host)
    yield from checkup.findings(facts, known)


def _age(moment: datetime | None) -> int | None:
    return None if moment is None else round((clock.now() - moment).total_seconds())


def _good(what: str, detail: str) -> Finding:
    return Finding(OK, what, detail)


COMMANDS = (doctor,)
