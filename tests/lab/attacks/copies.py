"""The node made anew, copied and linked: LXD alone prevents all three."""

import os
import subprocess
from contextlib import suppress
from pathlib import Path

from kit import attack, reopen

PLACES = ("/root/made", "/root/copied", "/root/linked")


def hold(node: str) -> None:
    made, copied, linked = PLACES
    status = Path(node).stat()
    with suppress(OSError):
        os.mknod(made, status.st_mode, status.st_rdev)
    subprocess.run(["cp", "-a", node, copied], check=False, capture_output=True)
    with suppress(OSError):
        os.link(node, linked)


def probe(_node: str) -> dict[str, str]:
    return {path: reopen(path) for path in PLACES}


attack(hold, probe)
