"""For admins: the workstations, whether their agents report, their GPUs, and what is offered for booking."""

from __future__ import annotations

from collections import Counter

from flask import Blueprint, Response, flash, request, url_for

from app import queue
from app.errors import InvalidInput, NotFound, RuleRefused
from app.extensions import transaction
from app.language import gettext as _
from app.models import Gpu, GpuState, Host, LibraryChoice
from app.services import alarms, attachments, instances, inventory
from app.services.quarantine import release_quarantine
from app.web import host_desktop, host_words, machine_words, survey_words
from app.web.host_cards import HostCard, lines
from app.web.machine_words import silence_of
from app.web.render import go, render
from app.web.security import admin_required
from app.web.sessions import me

bp = Blueprint("hosts", __name__, url_prefix="/hosts")

HOW_LENGTH = 200


@bp.get("")
@admin_required
def index() -> Response:
    """All hosts."""
    taken = attachments.by_gpu()
    machines = Counter(machine.host_id for machine in instances.everyones())
    gpus: dict[int, list[Gpu]] = {}
    for gpu, _host in inventory.gpus():
        gpus.setdefault(gpu.host_id, []).append(gpu)
    cards = [
        HostCard(host, lines(host, gpus.get(host.id, []), taken), machines[host.id], silence_of(host))
        for host in inventory.hosts()
    ]
    return render("hosts/index.html", cards=cards)


@bp.get("/<name>")
@admin_required
def show(name: str) -> Response:
    """One host: what is booked and what was seen, what differs, what was done; its machines and images."""
    host = inventory.host(name)
    gpus = [gpu for gpu, _host in inventory.gpus(host.id)]
    machines = instances.everyones(host.id)
    card = HostCard(host, lines(host, gpus, attachments.by_gpu(host.id)), len(machines), silence_of(host))
    return render(
        "hosts/show.html",
        card=card,
        differences=host_words.differences(host.observed),
        events=alarms.events(host, [gpu.id for gpu in gpus]),
        number_of={gpu.pci_address: gpu.minor for gpu in gpus},
        words=host_words,
        found=survey_words,
        libraries=survey_words.libraries(host),
        machines=machines,
        machine_status=machine_words.STATUS,
        **host_desktop.context(host),
    )


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


@bp.get("/<name>/remove")
@admin_required
def ask_remove(name: str) -> Response:
    """What removing a host means, before it is done."""
    host = inventory.host(name)
    return render(
        "confirm.html",
        title=_("Remove %(name)s?", name=host.name),
        lead=_("Berth forgets this host, its GPUs and what was measured of them."),
        facts=[
            _("On the host itself nothing is changed; its agent, if it runs as a service, is to be stopped there."),
            _("One on which anything was booked or made stays, for the record."),
        ],
        action=url_for("hosts.remove", name=host.name),
        button=_("Remove it"),
        back_url=url_for("hosts.show", name=host.name),
        danger=True,
    )


@bp.post("/<name>/remove")
@admin_required
def remove(name: str) -> Response:
    """Take out a host that was added by mistake."""
    host = inventory.host(name)
    try:
        with transaction():
            inventory.remove_host(me().username, host)
    except RuleRefused as error:
        flash(str(error), "error")
        return go(url_for("hosts.show", name=name))
    flash(_("%(host)s is removed.", host=name))
    return go(url_for("hosts.index"))


@bp.post("/<name>/libraries")
@admin_required
def libraries(name: str) -> Response:
    """Choose how NVIDIA's libraries come into the host's new machines."""
    host = inventory.host(name)
    try:
        choice = LibraryChoice(request.form.get("libraries", ""))
    except ValueError as error:
        raise InvalidInput(_("There is no such way."), field="libraries") from error
    with transaction():
        inventory.set_libraries(me().username, host, choice)
    queue.wake(host.name)
    return go(url_for("hosts.show", name=host.name, _anchor="libraries"))


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
    """Put a GPU back into service; one in quarantine is released on a page that says what that means."""
    host, gpu = _gpu(name, gpu_id)
    if gpu.state == GpuState.QUARANTINE:
        return go(url_for("hosts.ask_release", name=host.name, gpu_id=gpu.id))
    return _set_state(name, gpu_id, GpuState.IN_SERVICE)


@bp.get("/<name>/gpus/<int:gpu_id>/release")
@admin_required
def ask_release(name: str, gpu_id: int) -> Response:
    """What releasing a GPU from quarantine means, before it is done."""
    host, gpu = _gpu(name, gpu_id)
    return render("hosts/release.html", host=host, gpu=gpu, hit=attachments.to_come(gpu.id, limit=1))


@bp.post("/<name>/gpus/<int:gpu_id>/release")
@admin_required
def release(name: str, gpu_id: int) -> Response:
    """Let a GPU be booked again that could not be proven free."""
    host, gpu = _gpu(name, gpu_id)
    with transaction():
        done = release_quarantine(me().username, gpu, request.form.get("how", "").strip()[:HOW_LENGTH])
    if done:
        queue.wake(host.name)
        flash(_("GPU %(number)s is released from quarantine and can be booked again.", number=gpu.minor))
    else:
        flash(_("GPU %(number)s is not in quarantine.", number=gpu.minor))
    return go(url_for("hosts.show", name=host.name))


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
