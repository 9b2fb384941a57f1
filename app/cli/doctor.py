"""`berth doctor`: looks at everything Berth needs and says what to do about what it finds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import click
from sqlalchemy.exc import SQLAlchemyError

from app import clock, queue
from app.cli.base import NOT_RUNNING, driver_of, json_option, print_json
from app.config import Settings
from app.drivers.base import DriverError, HostSeen
from app.extensions import db, transaction
from app.models import Host
from app.schema import is_current
from app.services import inventory

SILENT = 60  # seconds without a sign of life after which an agent counts as away


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; `fix` says what to do when it is not as it should be."""

    what: str
    ok: bool
    detail: str
    fix: str = ""


@click.command()
@json_option
def doctor(as_json: bool) -> int:
    """Look at everything, say what is wrong and how to put it right; exit 1 if anything is."""
    found = list(_look(Settings.load()))
    if as_json:
        print_json([asdict(one) for one in found])
    else:
        for one in found:
            click.echo(f"{'ok  ' if one.ok else 'FAIL'} {one.what}: {one.detail}")
            if not one.ok:
                click.echo(f"     {one.fix}")
    return 0 if all(one.ok for one in found) else 1


def _look(given: Settings) -> Iterator[Finding]:
    yield Finding("settings", True, f"data in {given.data_dir}, slot {given.slot} s, zone {given.timezone}")
    if not given.database_url:
        yield Finding("database", False, "none", NOT_RUNNING)
        return
    from app import create_core  # noqa: PLC0415 - not needed to say that nothing runs

    with create_core(given).app_context():
        yield from _database()
        alive = queue.reachable()
        fix = "Start Berth, or set REDIS_URL. Without it, changes wait for the agents' next tick."
        yield Finding("valkey", alive, "reachable" if alive else "not reachable", fix)
        try:
            with transaction():
                hosts = inventory.hosts()
        except SQLAlchemyError:
            return
        if not hosts:
            yield Finding("hosts", False, "there are none", "Add one: berth host add NAME --lxd SOCKET_OR_URL")
        for host in hosts:
            yield from _host(host)


def _database() -> Iterator[Finding]:
    try:
        current = is_current(db.engine)
    except SQLAlchemyError as error:
        detail = f"not reachable ({type(error).__name__})"
        yield Finding("database", False, detail, "Start Berth with `make run`, or check DATABASE_URL.")
        return
    yield Finding("database", True, "reachable")
    detail = "up to date" if current else "not of this version"
    yield Finding("schema", current, detail, "Start Berth once: it brings the tables up to date.")


def _host(host: Host) -> Iterator[Finding]:
    age = None if host.seen_at is None else round((clock.now() - host.seen_at).total_seconds())
    seen = "never seen" if age is None else f"seen {age} s ago"
    fix = f"Start it on {host.name}: berth agent {host.name} (or berth up)."
    yield Finding(f"{host.name}: agent", age is not None and age <= SILENT, seen, fix)
    if host.trouble:
        yield Finding(f"{host.name}: last pass", False, host.trouble, "See the agent's log.")
    driver = driver_of(host)
    try:
        version, gpus, observed = driver.server().version, driver.gpus(), driver.observe()
    except DriverError as error:
        fix = error.todo or "Check that LXD runs there, and that this user may open its socket."
        yield Finding(f"{host.name}: LXD", False, str(error), fix)
        return
    yield Finding(f"{host.name}: LXD", True, f"version {version}")
    with transaction():
        known = {gpu.pci_address for gpu, _host in inventory.gpus(host.id)}
    same = known == {gpu.pci_address for gpu in gpus}
    fix = f"Bring them up to date: berth host sync {host.name}"
    yield Finding(f"{host.name}: GPUs", same, f"{len(gpus)} there, {len(known)} known", fix)
    yield from _instances(host.name, observed)


def _instances(host_name: str, observed: HostSeen) -> Iterator[Finding]:
    for seen in observed.instances.values():
        if seen.privileged:
            fix = "Berth gives it no GPU. Make it unprivileged: lxc config set NAME security.privileged=false"
            yield Finding(f"{host_name}: {seen.name}", False, "is privileged", fix)
        for device in seen.devices:
            if not device.ours:
                detail = f"has the GPU device {device.name} that Berth did not make"
                fix = (
                    f"It takes a GPU past every booking. Remove it: lxc config device remove {seen.name} {device.name}"
                )
                yield Finding(f"{host_name}: {seen.name}", False, detail, fix)


COMMANDS = (doctor,)
