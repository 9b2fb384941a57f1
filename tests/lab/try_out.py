"""`make lab`: Berth on two real LXD daemons with emulated GPUs, to be tried out by hand. All is gone at the end."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path

from tests.lab.fixtures import why_no_lab
from tests.lab.image import image
from tests.lab.lab import Lab, new_directory
from tests.lab.remains import sweep

HOSTS = ("ws1", "ws2")
GPUS = 4


def main() -> int:
    if why := why_no_lab():
        print(f"No lab here: {why}", file=sys.stderr)
        return 1
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    sweep()
    print("Building the image (once; over a minute), and starting two LXD daemons …", flush=True)
    image()
    folder = new_directory()
    try:
        with ExitStack() as stack:
            labs = [stack.enter_context(Lab(folder / name, gpus=GPUS)) for name in HOSTS]
            return _up(folder, labs)
    except KeyboardInterrupt:
        return 130
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _up(folder: Path, labs: list[Lab]) -> int:
    data = Path(os.environ.get("BERTH_DATA") or folder / "var")
    env = {**os.environ, "BERTH_DATA": str(data), "BERTH_LXD": str(labs[0].socket)}
    # In a session of its own: Ctrl-C is ours to pass on, once; a second one would mean hurry.
    berth = subprocess.Popen([sys.executable, "-m", "workers", "up"], env=env, start_new_session=True)
    second = [str(Path(sys.executable).parent / "berth"), "host", "add", labs[1].name, "--lxd", str(labs[1].socket)]
    try:
        while berth.poll() is None and not (data / "run" / "services.json").exists():
            with suppress(subprocess.TimeoutExpired):
                berth.wait(0.2)
        if berth.poll() is None:
            subprocess.run(second, env=env, check=False)
        return berth.wait()
    except KeyboardInterrupt:
        berth.send_signal(signal.SIGINT)
        return berth.wait()


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
