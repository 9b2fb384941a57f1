"""`python -m tests.hardware --lxd SOCKET --image ALIAS`: Berth on this host's real GPU, as root; about three minutes.

A Berth of its own on the LXD that is there, two machines of the image, and CUDA programs that do not let go: what it
reads and what it takes back, held against what NVML says. The first GPU has to be free, and no other Berth may look
after the host. Needs `cc`. What it made it removes. Exit status 1 if something is not as it should be.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from argparse import ArgumentParser
from pathlib import Path

from app.drivers.libraries import Way
from tests.bench.report import Report
from tests.hardware.host import Workstation
from tests.hardware.readings import Nvml, cost
from tests.hardware.turns import Findings, Turns
from tests.lab.scene import scene


def main() -> int:
    parser = ArgumentParser("python -m tests.hardware", description=__doc__)
    parser.add_argument("--lxd", type=Path, required=True, help="LXD's socket")
    parser.add_argument(
        "--image", required=True, help="an alias of an image with a C library at least as new as the host's"
    )
    chosen = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="berth-hardware-", dir="/var/tmp"))
    folder.chmod(0o755)
    found = Findings()
    try:
        host = Workstation(chosen.lxd, chosen.image, folder)
        nvml = Nvml(host.card)
        about = nvml.about()
        print(json.dumps(about), flush=True)
        found.say(host.card.minor == about["minor"], f"LXD and NVML agree on its number: {host.card}")
        brought = host.driver.bring_libraries()
        found.say(brought.way is not Way.INSTALL and brought.version == about["driver"], f"libraries: {brought}")
        found.figures += cost(host.card)
        with scene(host, BERTH_TICK="5") as berth:
            Turns(host, berth, nvml, found).all()
        nvml.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    how = f"{about['model']}, driver {about['driver']}, LXD {host.driver.server().version}"
    print(Report("hardware", how, tuple(found.figures)).table())
    return 0 if all(holds for holds, _ in found.facts) else 1


if __name__ == "__main__":
    sys.exit(main())
