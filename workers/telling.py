"""What a pass did, in words for a log or a terminal."""

from __future__ import annotations

from app.services.plan import Attach, Detach
from workers.outcome import Outcome
from workers.reconciler import PassResult
from workers.verdicts import State

MOST = 20  # processes that are named


def describe(result: PassResult) -> list[str]:
    """What a pass did, a line each, for a terminal."""
    lines = [_done(item) for item in result.outcome.belated]
    lines += [_detached(item, result.outcome) for item in result.plan.detaches]
    lines += [_done(item) for item in result.plan.attaches if item.want.tag.allocation_id not in result.errors]
    lines += [f"not attached {item.want.device}: {item.trouble}" for item in result.plan.waits]
    lines += [f"not attached (allocation {key}): {why} {text}" for key, (why, text) in result.errors.items()]
    lines += [f"foreign {item.device} on {item.instance}, left alone" for item in result.plan.foreign]
    for pci, verdict in result.outcome.verdicts.items():
        listed = verdict.ended[:MOST]
        lines += [f"ended {one.name} (process {one.pid} of {one.instance}) on {pci}" for one in listed]
        if more := len(verdict.ended[MOST:]):
            lines.append(f"ended {more} more processes on {pci}")
        if verdict.stopped:
            lines.append(f"stopped {verdict.stopped}, which did not let go of {pci}: {verdict.text}")
        if verdict.quarantine:
            lines.append(f"quarantined {pci}: {verdict.text}")
    return lines


def _detached(item: Detach, outcome: Outcome) -> str:
    verdict = outcome.verdicts.get(item.pci_address or item.device)
    if verdict is not None and verdict.state == State.HELD:
        return f"not free yet, {item.device} of {item.instance}: {verdict.text}"
    return _done(item)


def _done(item: Detach | Attach) -> str:
    if isinstance(item, Detach):
        return f"detached {item.device} from {item.instance}"
    return f"attached {item.want.device} to {item.want.instance}"
