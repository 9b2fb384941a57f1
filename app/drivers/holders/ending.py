"""Ends processes by descriptors that stand for one process for ever, whoever gets its number later."""

from __future__ import annotations

import errno
import logging
import os
import select
import signal
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, suppress
from itertools import islice

from app.drivers.base import DriverError
from app.drivers.holders.cgroups import payload
from app.drivers.holders.nodes import start_time
from app.drivers.kernel import Holder, Parted

log = logging.getLogger(__name__)

_AT_ONCE = 200  # processes; a service may often have no more than 1024 descriptors
_GONE = {errno.ESRCH, errno.EINVAL}  # the latter: the number is a thread's now


def send(
    holders: Collection[Holder], number: signal.Signals, groups: dict[str, str], stack: ExitStack
) -> dict[int, Holder]:
    """Signal each that is still who it was, in the container it was in (`groups`: instance → cgroup).

    Returns those that may be alive, by a descriptor that becomes readable when they end; `stack` closes it. Raises
    DriverError where there is no descriptor to be had: that says nothing of them."""
    sent: dict[int, Holder] = {}
    for holder in holders:
        try:
            handle = os.pidfd_open(holder.pid)
        except OSError as error:
            if error.errno in _GONE:
                continue
            raise DriverError(f"End process {holder.pid}", str(error), "Let the agent open more files.") from error
        stack.callback(os.close, handle)
        # After the descriptor is there: the number cannot pass to another process any more without our seeing it.
        if start_time(holder.pid) != holder.start or not groups.get(holder.instance):
            continue
        if payload(holder.pid) != groups[holder.instance]:
            log.warning("process %d is not in the container %s any more, left alone", holder.pid, holder.instance)
            continue
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, number)
            sent[handle] = holder
    return sent


def portions(holders: Collection[Holder]) -> Iterator[tuple[Holder, ...]]:
    """So many at a time as there surely are descriptors for."""
    left = iter(holders)
    while some := tuple(islice(left, _AT_ONCE)):
        yield some


def wait(sent: dict[int, Holder], seconds: float) -> tuple[Holder, ...]:
    """Wait at most so long for all of them to end; those that did not."""
    alive = dict(sent)
    poll = select.poll()
    for handle in alive:
        poll.register(handle, select.POLLIN)
    deadline = time.monotonic() + seconds
    while alive and (left := deadline - time.monotonic()) > 0:
        for handle, _event in poll.poll(left * 1000):
            poll.unregister(handle)
            alive.pop(handle)
    return tuple(alive.values())


def part(holder: Holder, holds: Callable[[], bool], seconds: float) -> Parted:
    """End a process of the host, as long as it `holds` what it should not. Raises DriverError where it does not."""
    what = f"End process {holder.pid}"
    if holder.pid == 1:
        raise DriverError(what, "it is the host's first one, with which all of the host ends", "Restart the host.")
    try:
        handle = os.pidfd_open(holder.pid)
    except OSError as error:
        raise DriverError(what, str(error)) from error
    try:
        # After the descriptor is there: whom a look finds now under this number and start is whom it stands for.
        if not holds():
            raise DriverError(what, "it does not hold a GPU of this host now, or is in a machine")
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, number)
            if not wait({handle: holder}, seconds):
                return Parted.ENDED
            if number == signal.SIGTERM and not holds():
                return Parted.LET_GO if wait({handle: holder}, 0.05) else Parted.ENDED
        return Parted.STAYS
    finally:
        os.close(handle)
