"""What is plugged in, held against what should be: a report of one host for those who have no way to it.

Pure: the same values give the same report, to the last byte, so one that says nothing new need not be stored. It holds
only what JSON can, is bounded, and what containers chose (names of processes, instances, devices) is cut and printable.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from app.drivers.base import DEVICE_NAME, DeviceSeen, GpuInfo, HostSeen, Node, Number
from app.drivers.kernel import HOST, Holder, Scan
from app.services.plan import Desired, Trouble, Want, is_in, plan

MOST = 200  # of each list
LONGEST = 80  # characters of a text

Report = dict[str, Any]


class Kind(StrEnum):
    """In what way what is seen differs from what should be."""

    MISSING = "missing"  # somebody should have the GPU, and has it not
    STALE = "stale"  # a device of ours where none should be
    FOREIGN = "foreign"  # a device that Berth did not make
    DOUBLED = "doubled"  # one GPU in two instances
    NO_NODE = "no_node"  # LXD says plugged in, and the instance has no device node
    LEFTOVER = "leftover"  # a device node of which LXD knows nothing


@dataclass(frozen=True)
class Drift:
    """One difference. `ours`: Berth puts it right at the next pass that can; otherwise it is only reported.

    `reason`: of a missing one a code of Trouble or `due`; stale: `over`, `moved`, `unbooked`, `other_gpu`; foreign:
    `by_hand`, `profile`, `any_gpu`; leftover: `node`, `copy`. `pci` is "" where the device names no GPU.
    """

    kind: Kind
    instance: str
    device: str
    pci: str
    ours: bool
    reason: str


def report(
    want: Desired,
    seen: HostSeen,
    scan: Scan | None,
    *,
    gpus: Sequence[GpuInfo] = (),
) -> Report:
    """The host's report. Without a `scan` nothing is said of processes.

    `gpus`: as the host lists them now, with their DRM nodes; those of `want` have none.
    """
    drift = _drift(want, seen)
    held = _held(want, scan.holders if scan else (), gpus or want.gpus)
    lists: dict[str, list[dict[str, Any]]] = {
        "gpus": [_line(gpu, want, seen, drift, held) for gpu in want.gpus],
        "drift": [asdict(item) for item in drift],
        "on_host": [entry for entry in held if entry["instance"] == HOST],
        "intruders": [entry for entry in held if entry["instance"] != HOST and not entry["booked"]],
        "doubts": [{"instance": shown(name), "why": shown(why)} for name, why in sorted(scan.doubts.items())]
        if scan
        else [],
    }
    left_out = sum(max(0, len(entries) - MOST) for entries in lists.values())
    return {"scanned": scan is not None, "left_out": left_out, **{name: e[:MOST] for name, e in lists.items()}}


def news(before: Mapping[str, Any], now: Report) -> Report | None:
    """What to store in place of `before`: None where it would be the same. What was not looked at stays as it was."""
    if not now["scanned"] and before.get("scanned"):
        now = {**now, **{name: before[name] for name in ("scanned", "on_host", "intruders", "doubts")}}
    return None if now == before else now


def _drift(want: Desired, seen: HostSeen) -> list[Drift]:
    wanted_at = {(item.instance, item.device): item for item in want.wants if item.instance}
    found = [
        item
        for instance in seen.instances.values()
        for device in instance.devices
        if (item := _of_device(instance.name, device, wanted_at.get((instance.name, device.name)), want))
    ]
    waits = {wait.want.tag.allocation_id: wait.trouble for wait in plan(want, seen).waits}
    without_node = {(item.instance, item.pci) for item in found if item.kind == Kind.NO_NODE}
    for one in want.wants:
        if not is_in(one, seen) and (one.instance, one.gpu.pci_address) not in without_node:
            reason = waits.get(one.tag.allocation_id, "due")
            found.append(_item(Kind.MISSING, one.instance or "", one.device, one.gpu.pci_address, reason))
    for pci, names in _where(seen).items():
        if len(names) > 1:
            strangers = {item.instance for item in found if item.kind == Kind.FOREIGN and item.pci == pci}
            found.append(
                _item(Kind.DOUBLED, ", ".join(sorted(names)), "", pci, "two_machines", ours=not strangers & names)
            )
    return sorted(found, key=lambda item: (item.pci, item.instance, item.device, item.kind))


def _of_device(instance: str, device: DeviceSeen, wanted: Want | None, want: Desired) -> Drift | None:
    """What is wrong with a device or a node, if anything."""
    pci = device.pci_address
    copy = device.node == Node.COPY and not device.configured
    if not device.ours and not copy:
        reason = "any_gpu" if not pci else "profile" if DEVICE_NAME.match(device.name) else "by_hand"
        return _item(Kind.FOREIGN, instance, device.name, pci, reason, ours=False)
    if wanted is not None and wanted.gpu.pci_address == pci:
        lacking = device.configured and device.node == Node.ABSENT
        return _item(Kind.NO_NODE, instance, device.name, pci, "lxd_only") if lacking else None
    if not device.configured:  # a mere copy cannot be taken out of the instance from outside; the fence shuts it
        return _item(Kind.LEFTOVER, instance, device.name, pci, "copy" if copy else "node", ours=not copy)
    return _item(Kind.STALE, instance, device.name, pci, _why_stale(device, wanted, want))


def _why_stale(device: DeviceSeen, wanted: Want | None, want: Desired) -> str:
    if wanted is not None:
        return "other_gpu"
    if device.tag is not None and device.tag.ends_at <= want.at.timestamp():
        return "over"
    return "moved" if device.pci_address in {item.gpu.pci_address for item in want.wants} else "unbooked"


def _item(kind: Kind, instance: str, device: str, pci: str, reason: str, *, ours: bool = True) -> Drift:
    return Drift(kind, shown(instance), shown(device), shown(pci), ours, str(reason))


def _where(seen: HostSeen) -> dict[str, set[str]]:
    """By PCI address, the instances that have the GPU: by LXD's word or by a node through which it can be opened."""
    found: dict[str, set[str]] = defaultdict(set)
    for instance in seen.instances.values():
        for device in instance.devices:
            if device.pci_address and (device.configured or device.node == Node.PRESENT):
                found[device.pci_address].add(instance.name)
    return found


def _held(want: Desired, holders: Iterable[Holder], gpus: Iterable[GpuInfo]) -> list[dict[str, Any]]:
    """Each process that holds GPUs. Those that are booked for it, and those that are out of service and so left alone,
    are entries of their own."""
    of_number: dict[Number, str] = {number: gpu.pci_address for gpu in gpus for number in gpu.numbers}
    wanted = {(item.instance, item.gpu.pci_address) for item in want.wants}
    found: dict[tuple[str, int, str, bool, bool], set[str]] = defaultdict(set)
    for holder in holders:
        for pci in {of_number[number] for number in holder.numbers if number in of_number}:
            booked = (holder.instance, pci) in wanted
            alone = pci not in want.guarded or holder.instance == HOST
            found[holder.instance, holder.pid, holder.name, booked, alone].add(pci)
    return [
        {
            "instance": shown(instance), "pid": pid, "name": shown(name), "booked": booked,
            "left_alone": alone, "gpus": sorted(addresses)[:MOST],
        }
        for (instance, pid, name, booked, alone), addresses in sorted(found.items())
    ]  # fmt: skip


def _line(
    gpu: GpuInfo,
    want: Desired,
    seen: HostSeen,
    drift: Iterable[Drift],
    held: Iterable[Mapping[str, Any]],
) -> dict[str, Any]:
    """One GPU: who should have it, who has it, and what to call that."""
    pci = gpu.pci_address
    wanted = next((item for item in want.wants if item.gpu.pci_address == pci), None)
    mine = [item for item in drift if item.pci == pci and item.reason != "copy"]
    inside = [entry for entry in held if pci in entry["gpus"] and entry["instance"] != HOST]
    ending = any(not entry["booked"] and not entry["left_alone"] for entry in inside)
    return {
        "pci": pci,
        "minor": gpu.minor,
        "want": {"instance": shown(wanted.instance or ""), "booking": wanted.tag.booking_id} if wanted else None,
        "seen": [shown(name) for name in sorted(_where(seen).get(pci, ()))][:MOST],
        "held_by": sorted({str(entry["instance"]) for entry in inside})[:MOST],
        "code": _code(wanted, mine, ending=ending, quarantined=pci in want.quarantined),
    }


def _code(wanted: Want | None, drift: Sequence[Drift], *, ending: bool, quarantined: bool) -> str:
    """What the GPU is, the worst first."""
    kinds, reasons = {item.kind for item in drift}, {item.reason for item in drift}
    found = {
        "quarantine": quarantined or Trouble.QUARANTINED in reasons,
        "doubled": Kind.DOUBLED in kinds,
        "evicting": ending or Trouble.EVICTING in reasons,
        "foreign": Kind.FOREIGN in kinds,
        "stale": Kind.STALE in kinds,
        "leftover": Kind.LEFTOVER in kinds,
        "no_node": Kind.NO_NODE in kinds,
        "attaching": "due" in reasons,
        "missing": Kind.MISSING in kinds,
        "ok": wanted is not None,
    }
    return next((code for code, true in found.items() if true), "free")


def shown(text: str) -> str:
    """Text that a container may have chosen, fit to be stored and shown."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:LONGEST])
