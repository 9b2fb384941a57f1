"""For admins: the workstations, whether their agents report, their GPUs, and what is offered for booking."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from flask import Blueprint, Response, flash, request, url_for
from flask_babel import gettext as _

from app import queue
from app.errors import NotFound
from app.extensions import transaction
from app.models import Allocation, Gpu, GpuState, Host
from app.services import attachments, instances, inventory
from app.web import machine_words
from app.web.machine_words import silence_of
from app.web.render import go, render
from app.web.security import admin_required
from app.web.sessions import me

bp = Blueprint("hosts", __name__, url_prefix="/hosts")


@dataclass(frozen=True)
class GpuLine:
    """One GPU and who has it now; `code`: see app.web.states."""

    gpu: Gpu
    holder: Allocation | None

    @property
    def code(self) -> str:
        """What the GPU is, in one word. Who has one that is out of service still has it."""
        if self.holder is not None:
            return "in_use" if self.holder.attached_at else "booked"
        codes = {GpuState.MAINTENANCE: "out_of_service", GpuState.QUARANTINE: "quarantine"}
        return codes.get(GpuState(self.gpu.state), "free")


@dataclass(frozen=True)
class HostCard:
    """One host as the list shows it."""

    host: Host
    lines: Sequence[GpuLine]
    machines: int
    silence: str

    @property
    def counts(self) -> dict[str, int]:
        """How many GPUs are what, in a fixed order."""
        found = Counter(line.code for line in self.lines)
        order = ("in_use", "booked", "free", "out_of_service", "quarantine")
        return {code: found[code] for code in order if found[code]}

    @property
    def state(self) -> tuple[str, str]:
        """The code in app.web.states and the word."""
        if self.silence:
            return "not_reachable", _("Not reachable") if self.host.seen_at else _("Never seen")
        return ("in_use", _("Reports")) if self.host.enabled else ("out_of_service", _("Not offered"))


@bp.get("")
@admin_required
def index() -> Response:
    """All hosts."""
    taken = attachments.by_gpu()
    machines = Counter(machine.host_id for machine in instances.everyones())
    lines: dict[int, list[GpuLine]] = {}
    for gpu, _host in inventory.gpus():
        lines.setdefault(gpu.host_id, []).append(GpuLine(gpu, taken.get(gpu.id)))
    cards = [HostCard(host, lines.get(host.id, []), machines[host.id], silence_of(host)) for host in inventory.hosts()]
    return render("hosts/index.html", cards=cards)


@bp.get("/<name>")
@admin_required
def show(name: str) -> Response:
    """One host: its GPUs, machines and images, and when its agent was last heard of."""
    host = inventory.host(name)
    taken = attachments.by_gpu(host.id)
    lines = [GpuLine(gpu, taken.get(gpu.id)) for gpu, _host in inventory.gpus(host.id)]
    machines = instances.everyones(host.id)
    card = HostCard(host, lines, len(machines), silence_of(host))
    return render("hosts/show.html", card=card, machines=machines, machine_status=machine_words.STATUS)


@bp.post("/<name>/check")
@admin_required
def check(name: str) -> Response:
    """Ask the host's agent to look now."""
    host = inventory.host(name)
    if queue.reachable():
        queue.wake(host.name)
        flash(_("%(host)s was asked to look now.", host=host.name))
    else:
        flash(_("Valkey does not answer. %(host)s looks by itself every few seconds.", host=host.name), "error")
    return go(url_for("hosts.show", name=host.name))


@bp.post("/<name>/offer")
@admin_required
def offer(name: str) -> Response:
    """Offer the host's GPUs for booking, or stop it."""
    host = inventory.host(name)
    enabled = request.form.get("enabled") == "1"
    with transaction():
        inventory.set_enabled(me().username, host, enabled)
    if enabled:
        flash(_("%(host)s can be booked again.", host=host.name))
    else:
        flash(_("%(host)s is not offered any more. What is booked stays booked.", host=host.name))
    return go(url_for("hosts.show", name=host.name))


@bp.get("/<name>/gpus/<int:gpu_id>/out")
@admin_required
def ask_out(name: str, gpu_id: int) -> Response:
    """What taking a GPU out of service means, before it is done."""
    host, gpu = _gpu(name, gpu_id)
    return render(
        "hosts/out.html",
        host=host,
        gpu=gpu,
        count=inventory.booked_after(gpu.id),
        hit=attachments.to_come(gpu.id),
    )


@bp.post("/<name>/gpus/<int:gpu_id>/out")
@admin_required
def take_out(name: str, gpu_id: int) -> Response:
    """Take a GPU out of service: nobody can book it any more."""
    return _set_state(name, gpu_id, GpuState.MAINTENANCE)


@bp.post("/<name>/gpus/<int:gpu_id>/back")
@admin_required
def put_back(name: str, gpu_id: int) -> Response:
    """Put a GPU back into service, out of maintenance or quarantine."""
    return _set_state(name, gpu_id, GpuState.IN_SERVICE)


def _set_state(name: str, gpu_id: int, state: GpuState) -> Response:
    host, gpu = _gpu(name, gpu_id)
    with transaction():
        inventory.set_gpu_state(me().username, gpu, state)
    queue.wake(host.name)
    if state == GpuState.IN_SERVICE:
        flash(_("GPU %(number)s can be booked again.", number=gpu.minor))
    else:
        flash(_("GPU %(number)s is out of service.", number=gpu.minor))
    return go(url_for("hosts.show", name=host.name))


def _gpu(name: str, gpu_id: int) -> tuple[Host, Gpu]:
    host = inventory.host(name)
    found = next((gpu for gpu, _host in inventory.gpus(host.id) if gpu.id == gpu_id), None)
    if found is None:
        raise NotFound(_("There is no such GPU on %(host)s.", host=host.name))
    return host, found
