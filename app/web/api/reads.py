"""/api/v1: what can only be read here: GPUs, machines, quota and usage."""

from __future__ import annotations

from datetime import timedelta

from flask import Response

from app import clock
from app.errors import InvalidInput, NotAllowed, NotFound
from app.language import gettext as _
from app.models import Instance, InstanceStatus, Port, Purpose
from app.services import instances, inventory, ports, quota, usage
from app.services.reports.spans import LONGEST
from app.web import connect
from app.web.api.answers import GpuOut, InstanceOut, QuotaOut, UsageOut
from app.web.api.auth import bearer
from app.web.api.blueprint import bp
from app.web.api.schemas import InstancesQuery, PastSpan
from app.web.api.spec import describe
from app.web.ways import config_text, download


@bp.get("/gpus")
@describe(tag="inventory", answer=list[GpuOut])
def list_gpus() -> list[GpuOut]:
    """Every GPU of every host."""
    return [
        GpuOut(
            id=gpu.id,
            host=host.name,
            model=gpu.model,
            pci_address=gpu.pci_address,
            minor=gpu.minor,
            state=gpu.state,
        )
        for gpu, host in inventory.gpus()
    ]


@bp.get("/instances")
@describe(tag="machines", answer=list[InstanceOut])
def list_instances(query: InstancesQuery) -> list[InstanceOut]:
    """One's own machines."""
    user = bearer().user
    if not query.all:
        mine = instances.of_user(user)
        doors = ports.by_machine({instance.id for instance in mine})
        return [_shown(instance, user.username, doors[instance.id]) for instance in mine]
    _only_admins()
    found = instances.everyones()
    doors = ports.by_machine({instance.id for instance in found})
    return [_shown(instance, instance.owner.username, doors[instance.id]) for instance in found]


@bp.get("/instances/<name>/rdp")
@describe(tag="machines", errors=(404, 409))
def instance_rdp(name: str) -> Response:
    """A file for a remote-desktop client, where the machine has a remote desktop."""
    instance = _own(name)
    return download(connect.with_rdp(instance).rdp_file, f"{instance.name}.rdp", "application/x-rdp")


@bp.get("/instances/<name>/ssh-config")
@describe(tag="machines", errors=(404, 409))
def instance_ssh_config(name: str) -> Response:
    """Lines for ~/.ssh/config, and as a comment the line for ~/.ssh/known_hosts."""
    instance = _own(name)
    return download(config_text(connect.with_ssh(instance)), f"{instance.name}.ssh-config", "text/plain")


@bp.get("/quota")
@describe(tag="quota", answer=QuotaOut)
def show_quota() -> QuotaOut:
    """Where one's account stands, in GPU-hours."""
    account_id = bearer().user.account_id
    if account_id is None:
        return QuotaOut(granted=0, held=0, used=0, free=0)
    found = quota.balance(account_id)
    return QuotaOut(
        granted=_hours(found.granted), held=_hours(found.held), used=_hours(found.used), free=_hours(found.free)
    )


@bp.get("/usage")
@describe(tag="quota", answer=list[UsageOut])
def show_usage(query: PastSpan) -> list[UsageOut]:
    """What one's bookings reserved within a span, and how much of it a GPU was attached and at work."""
    end = query.to or clock.now()
    start = query.from_ or end - timedelta(days=30)
    if end <= start:
        raise InvalidInput(_('"to" must be later than "from".'), field="to")
    if end - start > LONGEST:
        raise InvalidInput(_("A report covers %(days)s days at most.", days=LONGEST.days), field="from")
    if query.all:
        _only_admins()
    found = usage.by_booking(start, end, None if query.all else bearer().user)
    return [_used(one) for one in found]


def _only_admins() -> None:
    if not bearer().user.is_admin:
        raise NotAllowed(_("Only an admin's token with the scope admin can see everybody's."))


def _own(name: str) -> Instance:
    if not instances.NAME.fullmatch(name):
        raise NotFound(_("There is no such machine of yours."))
    return instances.get(bearer().user, name)


def _shown(instance: Instance, owner: str, doors: dict[Purpose, Port]) -> InstanceOut:
    numbers = {purpose: port.number for purpose, port in doors.items()}
    return InstanceOut(
        name=instance.name,
        host=instance.host.name,
        owner=owner,
        image=instance.image,
        cpus=instance.cpus,
        memory_mib=instance.memory_mib,
        disk_gib=instance.disk_gib,
        status=instance.status,
        created_at=instance.created_at,
        address=instance.host.address or instance.host.name,
        ssh_port=numbers.get(Purpose.SSH),
        rdp_port=numbers.get(Purpose.RDP),
        ssh_answers=_answers(instance, "ssh"),
        rdp_answers=_answers(instance, "rdp"),
    )


def _answers(instance: Instance, purpose: str) -> bool:
    return instance.status == InstanceStatus.RUNNING and instance.health.get(purpose) == ""


def _used(one: usage.BookingUsage) -> UsageOut:
    amounts = one.numbers
    return UsageOut(
        booking=one.booking.id,
        owner=one.booking.user.display_name,
        host=one.booking.host.name,
        gpus=list(one.gpu_ids),
        starts_at=one.booking.starts_at,
        ends_at=one.booking.ends_at,
        reserved_seconds=round(amounts.reserved),
        attached_seconds=round(amounts.attached),
        busy_seconds=round(amounts.busy) if one.measured else None,
        idle_seconds=round(amounts.idle) if one.measured else None,
        no_data_seconds=round(amounts.no_data),
        energy_kwh=round(amounts.kwh, 4),
        peak_memory_mib=amounts.memory,
        reserved_hours=_hours(amounts.reserved),
        attached_hours=_hours(amounts.attached),
    )


def _hours(seconds: float) -> float:
    return round(seconds / 3600, 4)
