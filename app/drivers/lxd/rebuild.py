"""An instance made anew from its image, with /home kept. LXD 5.0 has no rebuild, and nothing of an instance's files may
be read from the host by their paths: a link in there leads anywhere. So a new instance is made beside it, and tar in
the one writes to tar in the other, each as root in its own.

The old one is kept, as NAME-OLD, until the new one, NAME-NEW until then, has its name. No machine of a person's is
called so: their names have no capitals. Whatever is killed half-way, a look at which of the three there are says how to
go on: without one of that name, the new one has to get it. One that has it has all of /home: what is beside it was left
by another try, perhaps long ago, and counts for nothing.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace

from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import ClientConnection

from app.drivers.base import DriverError, GiveUp, HostUnreachable, InstanceSpec, Progress, TryAgain
from app.drivers.inside import PATH
from app.drivers.lifecycle import RENEWED
from app.drivers.lxd import creation, instances, shapes, streams
from app.drivers.lxd.errors import as_driver_errors
from app.drivers.lxd.shapes import Json
from app.drivers.lxd.wire import Wire

CARRY_LIMIT = 7200.0  # seconds for all of /home
STALLED = 60  # seconds without a byte
RENAME_LIMIT = 60.0
# Other file systems in /home, such as shared directories, are not the machine's own.
_READ = "exec tar -C / --one-file-system --numeric-owner --xattrs -cf - home 2>/dev/null"
_WRITE = "exec tar -C / --numeric-owner --xattrs -xpf - >/dev/null 2>&1"
_CHANGED = 1  # tar's word for files that changed while it read them: its programs still ran

Update = Callable[..., None]


def rebuild(wire: Wire, update: Update, spec: InstanceSpec, progress: Progress) -> None:
    """See above. What fails before the old one has lost its name leaves that as it was, and running."""
    what, new, old = f"Rebuild {spec.name}", f"{spec.name}-NEW", f"{spec.name}-OLD"
    with as_driver_errors(what):
        if wire.find(spec.name)[0] is not None:
            instances.clear(wire, spec.name, spec.owner)
            try:
                _prepare(wire, what, replace(spec, name=new), spec.name, progress)
            except HostUnreachable:
                raise
            except DriverError:
                with suppress(DriverError):  # nothing is left over; the first error is the one to tell of
                    instances.delete(wire, new, spec.owner)
                raise
            _halt(wire, spec.name)
            _rename(wire, spec.name, old)
        elif wire.find(old)[0] is None:
            raise GiveUp(what, "the host has no such instance", "Create the instance anew.")
        _halt(wire, new)
        _dress(wire, update, old, new, what)
        _rename(wire, new, spec.name)
        progress("starting", RENEWED)
        instances.power(wire, spec.name, "start")
        instances.delete(wire, old, spec.owner)


def _prepare(wire: Wire, what: str, spec: InstanceSpec, name: str, progress: Progress) -> None:
    creation.create(wire, spec, lambda step, done: progress(step, done // 3))
    instances.power(wire, name, "start")  # its tar has to run
    progress("carrying", 40)
    try:
        carry(wire, name, spec.name, spec.disk_gib << 30, what)
    except WebSocketException as error:
        raise TryAgain(what, f"the connection broke: {error}", "Look at LXD's log.") from error
    progress("carrying", 80)


def carry(wire: Wire, source: str, target: str, most: int, what: str) -> None:
    """All of /home from one running instance into another: `most` bytes of it."""
    deadline, taken = time.monotonic() + CARRY_LIMIT, 0
    with ExitStack() as stack:
        reader, out = _exec(wire, stack, source, _READ)
        writer, into = _exec(wire, stack, target, _WRITE)
        _send(out["0"], "")
        while True:
            try:
                piece = out["1"].recv(timeout=STALLED)
            except TimeoutError as error:
                raise TryAgain(what, f"/home could not be read for {STALLED} s", "Look what keeps it busy.") from error
            except ConnectionClosed:
                piece = ""
            if isinstance(piece, str):
                break
            taken += len(piece)
            if taken > most or time.monotonic() > deadline:
                raise GiveUp(what, "/home is larger than the new disk, or took too long", "Remove files from it.")
            _send(into["0"], piece)
        _send(into["0"], "")
        read, written = _status(wire, reader, deadline), _status(wire, writer, deadline)
    if read not in {0, _CHANGED} or written:
        detail = f"tar ended with {read} in the old one and {written} in the new one"
        raise GiveUp(what, detail, "Is there room on its disk, and is tar in both?")


def _exec(wire: Wire, stack: ExitStack, name: str, script: str) -> tuple[str, dict[str, ClientConnection]]:
    """A script running in there: the operation's id, and its streams."""
    request = {
        "command": ["/usr/bin/timeout", "-k", "2", f"{CARRY_LIMIT:.0f}", "/bin/sh", "-c", script],
        "environment": {"PATH": PATH, "LC_ALL": "C.UTF-8"},
        "interactive": False,
        "wait-for-websocket": True,
    }
    begun = wire.begin("instances", name, "exec", json=request)
    ends: dict[str, ClientConnection] = {}
    for stream in streams.in_order(begun):
        made = streams.connect(wire, begun, stream)
        with suppress(OSError):  # the command has ended already; else who does not read must not hold us for ever
            made.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", STALLED, 0))
        ends[stream] = stack.enter_context(made)
    return str(begun["id"]), ends


def _send(stream: ClientConnection, piece: bytes | str) -> None:
    """A tar that has read its archive's end, or has failed, is gone: how it ended, its status says."""
    with suppress(ConnectionClosed):
        stream.send(piece)


def _status(wire: Wire, operation: str, deadline: float) -> int:
    """A command's exit status, once it has ended."""
    while time.monotonic() < deadline:
        state = wire.get("operations", operation, "wait", timeout=5)
        if state["status_code"] >= 200:
            return int((state.get("metadata") or {}).get("return", 255))
    return 255


def _dress(wire: Wire, update: Update, old: str, new: str, what: str) -> None:
    """The old one's settings and devices, such as its ports, for the new one. Not its GPUs, its disk, and its NIC: no
    other may have its address while the old one is there."""
    kept = wire.find(old)[0]
    if kept is None:
        raise GiveUp(what, "the old instance is gone", "Create the instance anew.")
    config, every = shapes.without_gpus(kept)
    devices = {key: one for key, one in every.items() if one.get("path") != "/" and one.get("type") != "nic"}

    def change(_current: Json, body: Json) -> bool:
        before = dict(body["config"]), dict(body["devices"])
        body["config"].update(config)
        body["devices"].update(devices)
        return before != (body["config"], body["devices"])

    update(new, what, change)


def _halt(wire: Wire, name: str) -> None:
    try:
        instances.power(wire, name, "stop")
    except TryAgain:
        instances.power(wire, name, "stop", force=True)


def _rename(wire: Wire, name: str, new: str) -> None:
    wire.send("post", "instances", name, json={"name": new}, limit=RENAME_LIMIT)
