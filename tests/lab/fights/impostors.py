"""In the node's place, and in others like it: links to files of the host, FIFOs, sockets, plain files.

The links' targets, of which the container sees nothing, are given after the node."""

import os
import socket
import sys
from pathlib import Path

from fight import NODE, done, keeper
from kit import unmount

targets, before = [name for name in sys.argv[2:] if name != "before"], sys.argv[-1] == "before"
if not before:
    keeper()
    unmount(NODE)
Path(NODE).unlink(missing_ok=True)
Path(NODE).symlink_to(targets[0])
number = int(NODE.removeprefix("/dev/nvidia"))
dri = Path("/dev/dri")
dri.mkdir(exist_ok=True)
(dri / f"card{number}").symlink_to(targets[1])
os.mkfifo(dri / "renderD128")
os.mkfifo(f"/dev/nvidia{number + 1}")
with socket.socket(socket.AF_UNIX) as listener:
    listener.bind(f"/dev/nvidia{number + 2}")
Path(f"/dev/nvidia{number + 3}").write_text("no device")
done()
