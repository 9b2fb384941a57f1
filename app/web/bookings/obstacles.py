"""Why a GPU that is booked now is not attached, in words, with what to do about it."""

from __future__ import annotations

from dataclasses import dataclass

from flask import url_for

from app.language import gettext as _
from app.models import Allocation, Booking, Instance
from app.services import attachments, care, policy
from app.services.words import gpu_label

PROOF_SECONDS = 5  # from the kill to the proof that nobody holds the GPU any more


@dataclass(frozen=True)
class Obstacle:
    """`brief` replaces the state in the heading; `text` says more. The button posts, the link leads on."""

    brief: str
    text: str
    button: str = ""
    link: str = ""
    url: str = ""


def explain(booking: Booking, allocation: Allocation) -> Obstacle:
    """What stands in the way of an allocation with trouble."""
    host, gpu = booking.host.name, gpu_label(allocation.gpu)
    known = _of_machine(host, _machine(booking)) | _of_host(host, gpu)
    failed = Obstacle(
        _("%(gpu)s could not be attached", gpu=gpu),
        _("%(host)s could not attach %(gpu)s. %(again)s", host=host, gpu=gpu, again=_again()),
    )
    return known.get(allocation.trouble, failed)


def _of_machine(host: str, machine: Instance | None) -> dict[str, Obstacle]:
    """What the owner, or an admin, can do something about."""
    name = machine.name if machine else ""
    to_machine = {"link": _("Go to %(name)s", name=name), "url": url_for("machines.show", name=name) if name else ""}
    return {
        "no_machine": Obstacle(
            _("no machine on %(host)s", host=host),
            _("You have no machine on %(host)s that the GPU could be attached to.", host=host),
            link=_("Create a machine on %(host)s", host=host),
            url=url_for("machines.new", host=host),
        ),
        "stopped": Obstacle(
            _("machine stopped"),
            _("Your machine %(name)s is stopped. The GPU is attached as soon as it runs.", name=name),
            button=_("Start machine"),
            url=url_for("machines.switch", name=name, what="start") if name else "",
        ),
        "frozen": Obstacle(
            _("machine paused"),
            _("Your machine %(name)s is paused. The GPU is attached as soon as it runs.", name=name),
            **to_machine,
        ),
        "missing": Obstacle(_("machine missing"), _missing(machine, host), **to_machine),
        "privileged": Obstacle(
            _("machine not isolated"),
            _("Your machine %(name)s is privileged; such machines get no GPUs. Ask an admin to change it.", name=name),
            **to_machine,
        ),
    }


def _missing(machine: Instance | None, host: str) -> str:
    name = machine.name if machine else ""
    if machine is not None and care.halfway(machine) is not None:
        return _("The work on your machine %(name)s stopped half-way. Try it again on its page.", name=name)
    return _(
        "%(host)s does not have your machine %(name)s any more. Ask an admin what became of it.", host=host, name=name
    )


def _of_host(host: str, gpu: str) -> dict[str, Obstacle]:
    """What only time or an admin can mend."""
    return {
        "held": Obstacle(
            _("%(gpu)s still held", gpu=gpu),
            _("Another machine still has %(gpu)s. The admins see it. %(again)s", gpu=gpu, again=_again()),
        ),
        "evicting": Obstacle(
            _("%(gpu)s is being freed", gpu=gpu),
            _(
                "%(gpu)s is being taken back from its last user: what still uses it is ended, which takes %(seconds)s "
                "s at most.",
                gpu=gpu,
                seconds=policy.current().grace_seconds + PROOF_SECONDS,
            ),
        ),
        "quarantined": Obstacle(
            _("%(gpu)s could not be freed", gpu=gpu),
            _(
                "What its last user left on %(gpu)s could not be ended; the admins know. You keep your place: it is "
                "attached as soon as it is free. Or end the booking now: the rest of its hours is given back.",
                gpu=gpu,
            ),
        ),
        "no_node": Obstacle(
            _("%(gpu)s did not appear", gpu=gpu),
            _("%(gpu)s was plugged in, but your machine does not show it yet. %(again)s", gpu=gpu, again=_again()),
        ),
        "unreachable": Obstacle(
            _("%(host)s does not answer", host=host),
            _("%(host)s does not answer at the moment. The GPU is attached when it does.", host=host),
        ),
    }


def _again() -> str:
    return _("Berth tries again by itself.")


def _machine(booking: Booking) -> Instance | None:
    """The machine that the GPUs are for: the one named, else the owner's oldest on the host."""
    return booking.named or attachments.default_machine(booking.user_id, booking.host_id)
