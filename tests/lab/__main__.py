"""A lab by hand: `python -m tests.lab up DIR`, and `down DIR` afterwards."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.lab.desktop_image import desktop_image
from tests.lab.image import KINDS, ensure_packages, image
from tests.lab.lab import Lab
from tests.lab.remains import down, sweep


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.lab", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start a daemon in DIR; prints its socket")
    up.add_argument("--gpus", type=int, default=4)
    up.add_argument("--first-minor", type=int, help="N of the first /dev/nvidiaN (default: one that is free)")
    up.add_argument("--snap", action="store_true", help="hide the device directory, as LXD from a snap does")
    up.add_argument("--readable", action="store_true", help="give each GPU a /dev/dri/cardN that can be opened")
    up.add_argument("--bridge", action="store_true", help="a network for machines, with a way to the outside")
    commands.add_parser("image", help="build the image, and import it into the lab in DIR")
    commands.add_parser("down", help="stop and remove the lab in DIR")
    for name in ("up", "image", "down"):
        commands.choices[name].add_argument("directory", type=Path, metavar="DIR")
    commands.choices["image"].add_argument("kind", choices=["base", "networked"])
    commands.add_parser("images", help="build what the cache lacks of all images, one after the other")
    commands.add_parser("sweep", help="remove what killed test runs left")
    wish = parser.parse_args()
    if why := ensure_packages():
        print(why, file=sys.stderr)
        return 1
    if wish.command == "up":
        lab = Lab(
            wish.directory,
            wish.gpus,
            wish.first_minor,
            snap=wish.snap,
            readable=wish.readable,
            bridge=wish.bridge,
            owned=False,
        )
        lab.up(with_image=False)
        print(lab.socket)
    elif wish.command == "image":
        Lab(wish.directory).lxc("image", "import", str(image(wish.kind)), "--alias", wish.kind, timeout=300)
    elif wish.command == "images":
        print(*[image(kind) for kind in KINDS], desktop_image(), sep="\n")
    elif wish.command == "down":
        down(wish.directory)
    else:
        print("\n".join(sweep()))
    return 0


sys.exit(main())
