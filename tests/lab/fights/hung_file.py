"""A file of an overlay over a file system that answers no more, open: `stat` of the descriptor never returns."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

from fight import done, hold, leave, wait
from fuse import serve
from kit import mount

PLACES = {name: Path("/run/hung") / name for name in ("lower", "upper", "work", "both")}
mount("tmpfs", "/run", "tmpfs")
for place in PLACES.values():
    place.mkdir(parents=True)
server = serve(str(PLACES["lower"]))
mount("overlay", str(PLACES["both"]), "overlay", data=",".join(
    f"{option}={PLACES[name]}" for option, name in {"lowerdir": "lower", "upperdir": "upper", "workdir": "work"}.items()
))  # fmt: skip


def body(ready: Callable[[], None]) -> None:
    kept = [hold(), os.open(PLACES["both"] / "file", os.O_RDONLY)]
    os.kill(server, signal.SIGSTOP)
    Path("/root/pid").write_text(str(os.getpid()))
    wait(ready)
    os.close(kept[0])


leave(body)
done()
