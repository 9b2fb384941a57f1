"""Hosts and their GPUs: taken into Berth through LXD, brought up to date, switched on and off."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import asdict
from datetime import timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError

from app import clock
from app.drivers.base import ImageInfo, LxdDriver
from app.drivers.images import IMAGE_PREFIX
from app.drivers.libraries import Brought
from app.errors import InvalidInput, NotFound, RuleRefused
from app.extensions import db
from app.language import gettext as _
from app.models import (
    Allocation,
    Block,
    Gpu,
    GpuState,
    Host,
    LibraryChoice,
    Maintenance,
    UsageDay,
    UsageHour,
    UsageMinute,
    UsagePiece,
)
from app.services import audit

# A name or an IP, as it goes into configuration files and .rdp files: nothing that could be read as anything else.
ADDRESS = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|[0-9a-fA-F:]{2,39}")
SILENCE = timedelta(minutes=5)  # of a host's agent: it is away then
UNSEEN = "Who holds a GPU is not known now. "  # how a host's trouble begins that could be looked at but for that
HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def hosts(*, enabled_only: bool = False) -> list[Host]:
    """All hosts, by name."""
    query = select(Host).order_by(Host.name)
    if enabled_only:
        query = query.where(Host.enabled)
    return list(db.session.scalars(query))


def host(name: str) -> Host:
    """The host of that name. Raises NotFound."""
    found = db.session.scalar(select(Host).where(Host.name == name))
    if found is None:
        raise NotFound(_("There is no host %(name)s.", name=name))
    return found


def host_of(host_id: int) -> Host:
    """The host with that id, which there is."""
    return db.session.get_one(Host, host_id)


def gpus(host_id: int | None = None) -> list[tuple[Gpu, Host]]:
    """GPUs with their host, by host name and number."""
    query = select(Gpu, Host).join(Host).order_by(Host.name, Gpu.minor)
    if host_id is not None:
        query = query.where(Gpu.host_id == host_id)
    return [(gpu, owner) for gpu, owner in db.session.execute(query)]


def models() -> list[str]:
    """The GPU models that can be booked."""
    query = select(Gpu.model).join(Host).where(Gpu.state == GpuState.IN_SERVICE, Host.enabled).distinct()
    return sorted(db.session.scalars(query))


def add_host(actor: str, name: str, endpoint: str, driver: LxdDriver) -> Host:
    """Take a host into Berth with the GPUs that its LXD finds. Raises InvalidInput; DriverError if LXD is away."""
    if not HOST_NAME.fullmatch(name):
        raise InvalidInput(
            _("A host's name may hold small letters, digits and inner hyphens, 63 at most."), field="name"
        )
    if db.session.scalar(select(Host.id).where(Host.name == name)) is not None:
        raise InvalidInput(_("There is a host %(name)s already.", name=name), field="name")
    added = Host(name=name, endpoint=endpoint)
    db.session.add(added)
    db.session.flush()
    audit.record(actor, "host.added", f"host:{name}", endpoint=endpoint)
    sync_host(actor, added, driver, new=True)
    return added


def remove_host(actor: str, target: Host) -> None:
    """Take out a host of which nothing is on record but what it measured: added by mistake, or only to try Berth out.

    Raises RuleRefused where somebody has booked it, or it has, or had, a machine, a template or a shared directory."""
    name, own = target.name, select(Gpu.id).where(Gpu.host_id == target.id)
    try:
        with db.session.begin_nested():
            db.session.execute(own.with_for_update())  # its agent delivers nothing meanwhile
            for table in (UsageMinute, UsageHour, UsageDay, UsagePiece, Block):
                db.session.execute(delete(table).where(table.gpu_id.in_(own)))
            for of_host in (Maintenance, Gpu):
                db.session.execute(delete(of_host).where(of_host.host_id == target.id))
            db.session.execute(delete(Host).where(Host.id == target.id))
    except IntegrityError as error:
        raise RuleRefused(
            _("%(name)s is on record, with bookings, machines, templates or shared directories.", name=name),
            _("Stop offering it, and it may be switched off."),
            rule="on_record",
        ) from error
    audit.record(actor, "host.removed", f"host:{name}")


def sync_host(actor: str, target: Host, driver: LxdDriver, *, new: bool = False) -> list[Gpu]:
    """Bring a host's version, images and GPUs up to date. One that is gone stays, in maintenance. `new`: the host was
    not known until now, so that its GPUs came with it."""
    server = driver.server()
    target.member, target.cluster = server.member[:63], server.cluster[:64]
    saw_lxd(target, server.version, driver.images())
    found, now = driver.gpus(), clock.now()
    for gpu in found:
        values = {"model": gpu.model, "minor": gpu.minor, "uuid": gpu.uuid, "gone_at": None}
        added_at = None if new else now  # of one that was there, its own stays
        statement = insert(Gpu).values(host_id=target.id, pci_address=gpu.pci_address, added_at=added_at, **values)
        db.session.execute(statement.on_conflict_do_update(index_elements=["host_id", "pci_address"], set_=values))
    present = {gpu.pci_address for gpu in found}
    query = select(Gpu).where(Gpu.host_id == target.id).order_by(Gpu.minor)
    known = list(db.session.scalars(query, execution_options={"populate_existing": True}))  # as just written
    for row in known:
        if row.pci_address in present:
            continue
        row.gone_at = row.gone_at or now
        if row.state == GpuState.IN_SERVICE:
            row.state = GpuState.MAINTENANCE
            audit.record(actor, "gpu.missing", f"gpu:{row.id}", host=target.name, pci_address=row.pci_address)
    db.session.flush()
    audit.record(actor, "host.synced", f"host:{target.name}", gpus=sorted(present))
    return known


def saw_lxd(target: Host, version: str, images: list[ImageInfo]) -> None:
    """Write down which LXD a host has, and the images with a name that machines can be made from."""
    listed = [
        {"alias": image.alias, "description": image.description}
        for image in images
        if not image.alias.startswith(IMAGE_PREFIX)  # a template's: it is offered as that
    ]
    version = version[:32]
    if (target.lxd_version, target.images) != (version, listed):
        target.lxd_version, target.images = version, listed


def saw_image_files(target: Host, directory: str, names: list[str]) -> None:
    """Note which files of images lie on the host, for pages that have no way to it."""
    found = {"directory": directory, "names": names}
    if target.image_files != found:
        target.image_files = found
        db.session.flush()


def set_ways(
    actor: str, target: Host, *, address: str | None = None, listen: str | None = None, span: str | None = None
) -> None:
    """Where people reach a host's machines, at which of its addresses their ports listen, and which ports those are
    (`22000-22999`). What is None stays. Ports that machines have already stay theirs. Raises InvalidInput."""
    if address is not None:
        if address and not ADDRESS.fullmatch(address):
            raise InvalidInput(_("An address is a host's name, such as lab03.example.org, or an IP."), field="address")
        target.address = address
    if listen is not None:
        try:
            target.listen = str(ipaddress.ip_address(listen))
        except ValueError as error:
            raise InvalidInput(
                _("What to listen at is an IP address of the host, or 0.0.0.0 for all of them."), field="listen"
            ) from error
    if span is not None:
        match = re.fullmatch(r"(\d{4,5})-(\d{4,5})", span)
        first, last = (int(match[1]), int(match[2])) if match else (0, 0)
        if not 1024 <= first <= last <= 65535:
            raise InvalidInput(_("Ports are two numbers from 1024 to 65535, such as 22000-22999."), field="ports")
        target.first_port, target.last_port = first, last
    db.session.flush()
    audit.record(actor, "host.ways", f"host:{target.name}", address=target.address, listen=target.listen,
                 ports=f"{target.first_port}-{target.last_port}")  # fmt: skip


def set_gpu_state(actor: str, gpu: Gpu, state: GpuState) -> None:
    """Take a GPU out of service or put it back. Its bookings stay; see `booked_after`."""
    before, gpu.state = gpu.state, state
    if state != GpuState.QUARANTINE:
        gpu.quarantined_at, gpu.quarantine_reason = None, ""
    db.session.flush()
    audit.record(actor, "gpu.state", f"gpu:{gpu.id}", before=before, after=state)


def booked_after(gpu_id: int) -> int:
    """How many bookings, running ones included, still count on a GPU."""
    query = (
        select(func.count())
        .select_from(Allocation)
        .where(Allocation.gpu_id == gpu_id, Allocation.released_at.is_(None), Allocation.ends_at > clock.now())
    )
    return db.session.scalar(query) or 0


def set_enabled(actor: str, target: Host, enabled: bool) -> None:
    """Offer a host's GPUs for booking, or stop offering them."""
    target.enabled = enabled
    db.session.flush()
    audit.record(actor, "host.enabled" if enabled else "host.disabled", f"host:{target.name}")


def set_libraries(actor: str, target: Host, choice: LibraryChoice) -> None:
    """Choose how NVIDIA's libraries come into the host's new machines; what it cannot do, it does the next best way."""
    if target.libraries != choice:
        target.libraries = choice
        db.session.flush()
        audit.record(actor, "host.libraries", f"host:{target.name}", choice=choice)


def record_libraries(target: Host, brought: Brought) -> None:
    """Write down how they do come."""
    target.libraries_seen = {**asdict(brought), "choice": target.libraries}
    db.session.flush()


def is_away(trouble: str) -> bool:
    """Whether a host's trouble is that the last pass could not look at it: then what is known of it may be old."""
    return trouble != "" and not trouble.startswith(UNSEEN)


def is_lost(host: Host, silence: timedelta = SILENCE) -> bool:
    """Whether its agent has said nothing for `silence`, or says that it cannot look at the host."""
    return is_away(host.trouble) or (host.seen_at is not None and clock.now() - host.seen_at >= silence)


def saw_agent(host_id: int) -> None:
    """Note that the host's agent is alive."""
    target = db.session.get(Host, host_id)
    if target is not None:
        target.seen_at = clock.now()
        db.session.flush()
