"""What a look at a host found, in words: GPUs, differences and what Berth does about them, events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.language import gettext as _
from app.language import lazy_gettext as _l

OBSERVED = {  # a GPU's code in services.drift → the code in app.web.states, and the word; all others need none
    "attaching": ("attaching", _l("Attaching")),
    "missing": ("no_data", _l("Not plugged in")),
    "stale": ("ends_soon", _l("Not taken away yet")),
    "foreign": ("no_data", _l("Plugged in by hand")),
    "doubled": ("failed", _l("In two machines")),
    "no_node": ("failed", _l("No device node")),
    "leftover": ("no_data", _l("Node left behind")),
    "evicting": ("ends_soon", _l("Being taken away")),
}
KINDS = {
    "missing": _l("Not plugged in"),
    "stale": _l("Not taken away yet"),
    "foreign": _l("Not from Berth"),
    "doubled": _l("In two machines"),
    "no_node": _l("No device node"),
    "leftover": _l("Node left behind"),
}
REASONS = {  # of services.drift, and of a GPU that is missing those of services.plan.Trouble
    "due": _l("It is booked and not there yet."),
    "no_machine": _l("The person has no machine on this host."),
    "stopped": _l("The machine is stopped."),
    "frozen": _l("The machine is paused."),
    "missing": _l("The host has no such machine."),
    "privileged": _l("The machine is privileged; Berth plugs no GPU in there."),
    "held": _l("Another machine still has it."),
    "evicting": _l("What its last user left running on it is being ended."),
    "quarantined": _l("It is in quarantine."),
    "over": _l("The booking is over."),
    "moved": _l("It is booked for another machine now."),
    "unbooked": _l("There is no booking for it."),
    "other_gpu": _l("Another GPU is behind the device than its name says."),
    "by_hand": _l("Somebody plugged it in by hand."),
    "profile": _l("It comes from a profile in LXD."),
    "any_gpu": _l("It names no single GPU and may hand over all of them."),
    "two_machines": _l("Two machines have the same GPU."),
    "lxd_only": _l("LXD says it is plugged in, but the machine has no device node."),
    "node": _l("LXD knows nothing of this device node."),
    "copy": _l("It is a copy of a node that was taken away; it opens nothing."),
}
DEEDS = {  # by kind, what Berth does about what it may put right
    "stale": _l("Berth takes it away at its next look."),
    "leftover": _l("Berth takes it away at its next look."),
    "no_node": _l("Berth takes it out and plugs it in again."),
    "doubled": _l("Berth takes it out of the machine that should not have it."),
}
EVENTS = {
    "gpu.intruder": _l("Program without a booking"),
    "gpu.used_unbooked": _l("GPU used without a booking"),
    "gpu.unreadable": _l("GPU does not answer"),
    "gpu.quarantined": _l("GPU put into quarantine"),
    "gpu.released": _l("GPU released from quarantine"),
    "instance.force_stopped": _l("Machine stopped by force"),
    "host.pool_full": _l("Storage pool nearly full"),
    "job.refused": _l("Forged job refused"),
}
LEVELS = {"bad": ("failed", _l("To be mended")), "warn": ("no_data", _l("Worth a look"))}  # of a check-up's findings


@dataclass(frozen=True)
class Difference:
    """One difference between what should be and what is, in words."""

    what: str
    machine: str
    device: str
    why: str
    deed: str


def differences(observed: Mapping[str, Any]) -> list[Difference]:
    """What the last look found to differ."""
    return [
        Difference(
            str(KINDS.get(item["kind"], item["kind"])),
            item["instance"],
            item["device"] or item["pci"],
            str(REASONS.get(item["reason"], item["reason"])),
            _deed(item),
        )
        for item in observed.get("drift", [])
    ]


def _deed(item: Mapping[str, Any]) -> str:
    if item["reason"] == "copy":
        return _("Left alone; it does no harm.")
    if not item["ours"]:
        return _("It stays. Unless the GPU is out of service, nothing there may use it without a booking.")
    if item["kind"] == "missing":
        due = item["reason"] == "due"
        return _("Berth plugs it in at its next look.") if due else _("Berth plugs it in as soon as that is over.")
    return str(DEEDS.get(item["kind"], ""))
