"""A message on every terminal and every desktop of a running instance, through LXD's exec.

What runs in there is the container's own and may do anything: it gets nothing but the text, by its environment; it is
waited for no longer than LIMIT, and then killed; and nothing that it prints is read. It does print into websockets that
stay full, though: without them LXD 5.0 writes all of it to a log on the host, until the disk is full.
"""

from __future__ import annotations

import os
import socket
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from app.drivers.lxd import streams
from app.drivers.lxd.errors import as_driver_errors
from app.drivers.lxd.shapes import Json
from app.drivers.lxd.wire import Wire

LIMIT = 6.0  # seconds, whatever happens in there
LONGEST = 2000  # characters
PATIENCE = 3.0  # seconds for LXD to answer on one of its sockets
_CLOSED_INPUT = b"\x81\x80" + bytes(4)  # a frame without content: there is nothing to read

# The whole is ended after 4 s. Each terminal and each desktop has a deadline of its own and they go side by side: one
# that is stopped, or that nobody reads, takes nothing from the others.
_COMMAND = ["/usr/bin/timeout", "-k", "1", "4", "/bin/sh", "-c"]

# A terminal; BERTH_TITLE and BERTH_TEXT come with the environment.
_WRITE = r"""printf '\r\n\a%s\r\n%s\r\n' "$BERTH_TITLE" "$BERTH_TEXT" > "$1" """

# A desktop, as its user, until read (urgency 2). Whichever of the three is there; busctl comes with systemd.
_NOTIFY = r"""
notify-send -a Berth -u critical "$1" "$2" || gdbus call --session \
  --dest org.freedesktop.Notifications --object-path /org/freedesktop/Notifications \
  --method org.freedesktop.Notifications.Notify Berth 0 '' "$1" "$2" '[]' '{"urgency": <byte 2>}' 0 || busctl \
  "--address=$DBUS_SESSION_BUS_ADDRESS" call org.freedesktop.Notifications /org/freedesktop/Notifications \
  org.freedesktop.Notifications Notify 'susssasa{sv}i' Berth 0 '' "$1" "$2" 0 1 urgency y 2 0
"""

# The desktops are found by the environments of their programs. Only a plain socket will do: an address can also name a
# program to start (unixexec:), and a set-uid program shows an environment that is not its user's.
_SCRIPT = r"""
exec > /dev/null 2>&1
n=0
for tty in /dev/pts/[0-9]* /dev/console /dev/tty[1-9]; do
  [ -c "$tty" ] || continue
  n=$((n + 1)); [ $n -le 64 ] || break
  timeout -k 0.2 1 sh -c "$BERTH_WRITE" sh "$tty" &
done
n=0 known=' '
for file in $(timeout 1 grep -lzE '^(WAYLAND_)?DISPLAY=' /proc/[0-9]*/environ); do
  bus=$(timeout 1 grep -zm1 '^DBUS_SESSION_BUS_ADDRESS=' "$file" | tr -d '\000' | head -c 300)
  bus=${bus#DBUS_SESSION_BUS_ADDRESS=}
  case $bus in
    *[!-A-Za-z0-9_./:=,%]*) continue ;;
    unix:path=*|unix:abstract=*) ;;
    *) continue ;;
  esac
  owner=$(stat -c '%u %g' "${file%/environ}") || continue
  case $known in *" ${owner%% *}@$bus "*) continue ;; esac
  known="$known${owner%% *}@$bus "
  n=$((n + 1)); [ $n -le 8 ] || break
  timeout -k 0.2 2 setpriv "--reuid=${owner%% *}" "--regid=${owner##* }" --clear-groups \
    env -i "PATH=$PATH" LC_ALL=C.UTF-8 "DBUS_SESSION_BUS_ADDRESS=$bus" \
    sh -c "$BERTH_NOTIFY" sh "$BERTH_TITLE" "$BERTH_BODY" &
done
wait
"""


def tell(wire: Wire, name: str, title: str, text: str) -> None:
    """Show the message in there. Done means that LXD ran the command: what came of it, only its people know."""
    what = f"Tell {name}"
    with as_driver_errors(what):
        streams.require_running(wire, name, what)
        begun = wire.begin("instances", name, "exec", json=_request(title, text))
        with _connected(wire.socket, begun):
            wire.join(str(begun["id"]), LIMIT)


@contextmanager
def _connected(path: str, begun: Json) -> Iterator[None]:
    """Hold the command's standard streams, unread, and its control. That one closed, LXD kills what still runs."""
    with ExitStack() as stack:
        ends = {}
        for name in streams.in_order(begun):
            target = f"/1.0/operations/{begun['id']}/websocket?secret={begun['metadata']['fds'][name]}"
            ends[name] = stack.enter_context(_websocket(path, target))
            if name == "0":
                ends[name].sendall(_CLOSED_INPUT)
        yield


def _websocket(path: str, target: str) -> socket.socket:
    """A connection to LXD that has become a websocket. Nothing of what comes after is ever read."""
    with ExitStack() as stack:
        made = stack.enter_context(socket.socket(socket.AF_UNIX))
        made.settimeout(PATIENCE)
        made.connect(path)
        key = b64encode(os.urandom(16)).decode()
        made.sendall(
            f"GET {target} HTTP/1.1\r\nHost: lxd\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        answer = made.recv(4096)
        if b" 101 " not in answer.partition(b"\r\n")[0]:
            raise OSError(f"LXD opens no websocket: {answer[:100]!r}")
        stack.pop_all()
    return made


def _request(title: str, text: str) -> Json:
    title, text = _plain(title.replace("\n", " ")), _plain(text)
    return {
        "command": [*_COMMAND, _SCRIPT],
        "environment": {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LC_ALL": "C.UTF-8",
            "BERTH_TITLE": title,
            "BERTH_TEXT": text.replace("\n", "\r\n"),
            "BERTH_BODY": text.translate(_NO_MARKUP),
            "BERTH_WRITE": _WRITE,
            "BERTH_NOTIFY": _NOTIFY,
        },
        "interactive": False,
        "wait-for-websocket": True,
    }


_NO_MARKUP = str.maketrans("<>&", "‹›+")  # a desktop may take a body for HTML


def _plain(text: str) -> str:
    """Without what a terminal takes for a command: process names are the container's text."""
    kept = "".join(character for character in text if character == "\n" or character.isprintable())
    return kept[:LONGEST]
