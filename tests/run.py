"""Everything: `python -m tests.run` sets up what is missing, checks the code, runs the suites one after the other, and
closes with one line in pytest's words. `… lint` only checks the code. Exit status 0 only if all of it is well."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree as ET

from tests.lab.image import PACKAGES as LAB_PACKAGES
from tests.require import required

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
CHECKS = (["ruff", "check", "."], ["mypy"], ["lint-imports"])
LABS = ["tests/browser", "tests/drivers", "tests/lab"]  # where tests with a lab are: to collect all takes half a minute
# The quick ones and browsers side by side, and labs by the file; what measures time one after the other, by itself.
# xdist would begin with the files of many tests, and the desktop from nothing, which takes minutes, would come last.
LAB = ["-n", "2", "--dist", "loadfile", "--no-loadscope-reorder", "-m", "lab and not timed and not holds"]
SUITES = {
    "quick": ["-n", "2", "-m", "not lab and not browser", "--ignore", "tests/runtime", "tests"],
    "runtime": ["-m", "not lab and not browser", "tests/runtime"],
    "lab": [*LAB, *LABS],
    "holds": ["-m", "holds and not apart", *LABS],
    "apart": ["-m", "holds and apart", *LABS],
    "timed": ["-m", "lab and timed", *LABS],
    "browser": ["-n", "2", "-m", "browser and not lab", "tests/browser"],
}
# Who starts and ends whole Berths, or is at a lab by itself, waits more than it works: one runs while the other does.
# No more than two at once: with four, a slow machine of two cores misses what has to be there within seconds.
BESIDE = {"quick": ("runtime",), "holds": ("apart",)}
ON_LXD = {"lab", "holds", "apart", "timed"}
PACKAGES = [
    "chromium", "fonts-noto-cjk", "gcc", "libc6-dev", "openssh-client", "freerdp2-x11", "xvfb", "imagemagick",
    *LAB_PACKAGES,
]  # fmt: skip
NO_TESTS = 5  # pytest's exit status


def main(arguments: list[str]) -> int:
    began = time.monotonic()
    broken = [check[0] for check in CHECKS if step(check[0], [str(BIN / check[0]), *check[1:]])]
    well = not broken
    if arguments == ["lint"]:
        return 0 if well else 1
    install_packages()
    chosen = arguments or list(SUITES)
    if ON_LXD & set(chosen):
        # Minutes of both cores, once on a machine: beside suites that wait for seconds, those would fail
        step("images of the lab", [sys.executable, "-m", "tests.lab", "images"])
    with tempfile.TemporaryDirectory(prefix="berth-results-") as folder:
        counts = Counter(errors=len(broken))
        skips: Counter[str] = Counter()
        for names in abreast(chosen):
            for name, status in side_by_side(names, Path(folder)).items():
                report = Path(folder, f"{name}.xml")
                well = well and status in {0, NO_TESTS}
                read(report, counts, skips)
                if status not in {0, 1, NO_TESTS} or not report.exists():
                    counts["errors"] += not (counts["failed"] or counts["errors"])
    well = tell_skips(skips) and well
    print("\n".join(f"{name} finds fault: see above" for name in broken), flush=True)
    print(closing_line(counts, time.monotonic() - began), flush=True)
    return 0 if well else 1


def abreast(chosen: list[str]) -> list[list[str]]:
    """The suites in their order, those that run at the same time together."""
    beside = {name: [other for other in BESIDE.get(name, ()) if other in chosen] for name in chosen}
    taken = {other for others in beside.values() for other in others}
    return [[name, *beside[name]] for name in chosen if name not in taken]


def side_by_side(names: list[str], folder: Path) -> dict[str, int]:
    """Run suites at the same time, and return their exit statuses. What the first says is shown as it comes, what the
    others say when they end."""
    began = time.monotonic()
    commands = {
        name: [sys.executable, "-m", "pytest", "-q", f"--junitxml={folder / name}.xml", *SUITES[name]] for name in names
    }
    others: dict[str, subprocess.Popen[bytes]] = {}
    for name in names[1:]:
        with (folder / f"{name}.log").open("wb") as log:
            others[name] = subprocess.Popen(commands[name], cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
    statuses = {names[0]: step(names[0], commands[names[0]])}
    for name, process in others.items():
        statuses[name] = process.wait()
        print(f"\n== beside it, {name}: {' '.join(SUITES[name])}", flush=True)
        sys.stdout.write((folder / f"{name}.log").read_text(errors="replace"))
    print(f"== {' and '.join(names)}: {time.monotonic() - began:.0f} s", flush=True)
    return statuses


def step(name: str, command: list[str]) -> int:
    print(f"\n== {name}: {' '.join(command[-6:])}", flush=True)
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def install_packages() -> None:
    """As root on Debian: a browser and a compiler (the lab fetches its own). Without, tests say what they miss."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return
    asked = {name: subprocess.run(["dpkg", "-s", name], capture_output=True, check=False) for name in PACKAGES}
    missing = [name for name, answer in asked.items() if answer.returncode]
    if missing:
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for words in (["update"], ["install", "-y", "--no-install-recommends", *missing]):
            subprocess.run(["apt-get", "-qq", *words], env=quiet, check=False, stdout=subprocess.DEVNULL)


def read(report: Path, counts: Counter[str], skips: Counter[str]) -> None:
    """Add up a suite's results."""
    if not report.exists():
        return
    for case in ET.parse(report).iter("testcase"):
        kinds = {child.tag: child for child in case}
        if "error" in kinds:
            counts["errors"] += 1
        elif "failure" in kinds:
            counts["failed"] += 1
        elif "skipped" in kinds and kinds["skipped"].get("type") == "pytest.xfail":
            counts["xfailed"] += 1
        elif "skipped" in kinds:
            counts["skipped"] += 1
            skips[kinds["skipped"].get("message") or "no reason given"] += 1
        else:
            counts["passed"] += 1


def tell_skips(skips: Counter[str]) -> bool:
    """Name what was skipped and why; whether that is allowed."""
    for reason, number in skips.items():
        print(f"skipped {number}: {reason}")
    if skips and required("all"):
        print("BERTH_REQUIRE=all: nothing may be skipped", file=sys.stderr)
        return False
    return True


def closing_line(counts: Counter[str], seconds: float) -> str:
    """As pytest says it, over all suites."""
    words = [f"{counts[kind]} {kind}" for kind in ("failed", "passed", "skipped", "xfailed", "errors") if counts[kind]]
    text = f" {', '.join(words) or 'no tests ran'} in {seconds:.2f}s "
    return text.center(80, "=")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
