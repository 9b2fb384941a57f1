"""Run a command inside an instance through LXD's exec, over websockets: see app.drivers.inside for its limits.

Without websockets LXD 5.0 writes all that a command says to a log on the host, until the disk is full.
"""

from __future__ import annotations

import codecs
import time
from contextlib import ExitStack

from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import ClientConnection

from app.drivers.base import TryAgain
from app.drivers.inside import PATH, Answer, Command, Heard
from app.drivers.lxd import streams
from app.drivers.lxd.errors import as_driver_errors
from app.drivers.lxd.shapes import Json
from app.drivers.lxd.wire import Wire

LARGEST_INPUT = 1 << 15  # what fits into a pipe, whether it is read or not
_KEPT = 1 << 16  # bytes of a long answer that are kept, its end


def run(wire: Wire, name: str, command: Command, heard: Heard | None = None) -> Answer:
    """Run it in the running instance and wait for its end."""
    what = f"Run {command.argv[0]} in {name}"
    assert len(command.stdin) <= LARGEST_INPUT
    with as_driver_errors(what):
        streams.require_running(wire, name, what)
        deadline = time.monotonic() + command.limit
        begun = wire.begin("instances", name, "exec", json=_request(command))
        try:
            text = _talk(wire, begun, command, deadline, heard)
        except WebSocketException as error:
            raise TryAgain(what, f"the connection broke: {error}", "Look at LXD's log.") from error
        if text is None:
            raise TryAgain(what, f"it was not done within {command.limit:.0f} s or said too much", "See the log.")
        return Answer(_status(wire, str(begun["id"])), text)


def _talk(wire: Wire, begun: Json, command: Command, deadline: float, heard: Heard | None) -> str | None:
    """What the command said, its end where that is long; None for one that went beyond its limits. With the control
    connection closed, LXD kills what still runs."""
    with ExitStack() as stack:
        ends: dict[str, ClientConnection] = {}
        for stream in streams.in_order(begun):
            ends[stream] = stack.enter_context(streams.connect(wire, begun, stream))
            if stream == "0":  # before it begins: afterwards it may have ended already
                if command.stdin:
                    ends["0"].send(command.stdin)
                ends["0"].send("")  # LXD's sign for the end of the input
        return _listen(ends["1"], command.most, deadline, heard)


def _listen(stream: ClientConnection, most: int, deadline: float, heard: Heard | None) -> str | None:
    decoder, kept, taken = codecs.getincrementaldecoder("utf-8")("replace"), "", 0
    while (left := deadline - time.monotonic()) > 0:
        try:
            piece = stream.recv(timeout=min(left, 1.0) if heard else left)
        except TimeoutError:
            if heard:
                heard("")
            continue
        except ConnectionClosed:
            piece = ""
        if isinstance(piece, str):  # LXD's sign for the end of the output
            return kept + decoder.decode(b"", final=True)
        taken += len(piece)
        if taken > most:
            return None
        text = decoder.decode(piece)
        kept = (kept + text)[-_KEPT:]
        if heard and text:
            heard(text)
    return None


def _status(wire: Wire, operation: str) -> int:
    """The command's exit status; 255 where LXD has forgotten it already."""
    ended = wire.get("operations", operation, "wait", timeout=5)
    return int((ended.get("metadata") or {}).get("return", 255))


def _request(command: Command) -> Json:
    return {
        # the limit also holds in there: what is left over when LXD lets go must not run for ever
        "command": ["/usr/bin/timeout", "-k", "2", f"{command.limit + 1:.0f}", *_joined(command.argv)],
        "environment": {"PATH": PATH, "LC_ALL": "C.UTF-8", **command.environment},
        "interactive": False,
        "wait-for-websocket": True,
    }


def _joined(argv: tuple[str, ...]) -> list[str]:
    """Both streams as one, in the order in which they are written."""
    return ["/bin/sh", "-c", 'exec "$@" 2>&1', "sh", *argv]
