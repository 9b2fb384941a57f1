"""NVIDIA's libraries for machines: which way they come on this host, and the directory that they are mounted from.

The directory lies beside LXD's socket, where LXD from a snap sees it too. It stays the same one, so that machines which
run see what is changed in it: `lib` is a link that is put over to the new version when all of that is there.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from app.drivers.libraries import INSIDE, Brought, Way, Why
from app.drivers.lxd.shapes import Json

FOLDER = "berth-nvidia"
CONF = "berth-nvidia.conf"
DEVICES = ("nvidia-lib", "nvidia-ldc")
# Of equal length, and no beginning of another's: LXD 5.0.2 removes along what begins like the one it removes.
_NAMES = re.compile(
    r"lib(?:cuda|cudadebugger|nvcuvid|nvoptix|nvidia-[a-z0-9-]+|GLX_nvidia|EGL_nvidia|GLESv1_CM_nvidia|GLESv2_nvidia)"
    r"\.so(?:\.[0-9.]+)?"
)
_LISTED = re.compile(r"^\t(\S+) \(([^)]*)\) => (/\S+)$", re.MULTILINE)
_PROGRAMS = ("/usr/bin/nvidia-smi", "/usr/bin/nvidia-debugdump")
_VERSION = re.compile(r"\d{3,4}\.\d{1,4}(?:\.\d{1,4})?")
_WAY = "way"
_CLI = "nvidia-container-cli"


def bring(
    lxd_dir: Path | None,
    version: str,
    extensions: Collection[str],
    listing: Callable[[], str],
    wanted: Way | None = None,
) -> Brought:
    """Decide which way libraries of this version come, get them ready, and remember it for new machines. A tool that
    cannot reach the driver would keep every machine from starting, so it is asked. A directory that machines have
    mounted already is kept up to date, whichever way is decided on for new ones."""
    cdi = "gpu_cdi_hotplug" in extensions
    if lxd_dir is None or not version:
        return Brought(Way.INSTALL, Why.REMOTE if lxd_dir is None else Why.NO_DRIVER, version, cdi)
    way, why = _choose(extensions, wanted)
    if (way is Way.MOUNT or mounted_version(lxd_dir)) and not fill(lxd_dir, version, listing()) and way is Way.MOUNT:
        way, why = Way.INSTALL, Why.NO_FILES
    if way is not Way.INSTALL or decided(lxd_dir):
        (lxd_dir / FOLDER).mkdir(mode=0o755, exist_ok=True)
        (lxd_dir / FOLDER / _WAY).write_text(way)
    return Brought(way, why, version, cdi)


def _choose(extensions: Collection[str], wanted: Way | None) -> tuple[Way, Why]:
    if wanted in {Way.MOUNT, Way.INSTALL}:
        return wanted, Why.CHOSEN
    if "nvidia_runtime" not in extensions:
        return Way.MOUNT, Why.NO_RUNTIME
    if not _runtime():
        return Way.MOUNT, Why.NO_TOOLS
    return Way.RUNTIME, Why.CHOSEN if wanted else Why.BEST


def decided(lxd_dir: Path | None) -> Way | None:
    """The way that was decided on last; None if nobody has."""
    try:
        return Way((lxd_dir / FOLDER / _WAY).read_text()) if lxd_dir else None
    except (OSError, ValueError):
        return None


def for_new(lxd_dir: Path | None) -> tuple[Json, Json]:
    """What a new machine needs for them: configuration and devices."""
    chosen = decided(lxd_dir)
    if chosen is Way.RUNTIME:
        return {"nvidia.runtime": "true", "nvidia.driver.capabilities": "compute,utility,graphics,video"}, {}
    if chosen is not Way.MOUNT or lxd_dir is None:
        return {}, {}
    folder = lxd_dir / FOLDER
    disk = {"type": "disk", "readonly": "true"}
    conf = {**disk, "source": str(folder / CONF), "path": f"/etc/ld.so.conf.d/00-{CONF}"}
    return {}, dict(zip(DEVICES, ({**disk, "source": str(folder), "path": INSIDE}, conf), strict=True))


def mounted_version(lxd_dir: Path) -> str:
    """Of which version the directory's libraries are; "" where there are none."""
    try:
        return (lxd_dir / FOLDER / "lib").readlink().parts[0]
    except (OSError, IndexError):
        return ""


def listed() -> str:
    """The host's libraries, as its linker knows them."""
    return subprocess.run(["ldconfig", "-p"], capture_output=True, text=True, timeout=20, check=True).stdout  # noqa: S607


def fill(lxd_dir: Path, version: str, listing: str, programs: Iterable[str] = _PROGRAMS) -> bool:
    """Copy what the host has of exactly this version; False if it has nothing of it. Done again, it does nothing."""
    if not _VERSION.fullmatch(version):
        return False
    found = dict(_of_version(listing, version))
    if not any(name.startswith(("libcuda.so", "libnvidia-ml.so")) for name in found):
        return False
    folder = lxd_dir / FOLDER
    if mounted_version(lxd_dir) != version:
        _copy(folder / version, found, programs)
        _put_over(folder, version)
    return True


def _of_version(listing: str, version: str) -> Iterator[tuple[str, Path]]:
    """Names that programs ask for, and the files: of this machine's own kind, and of this version only."""
    for name, kind, path in _LISTED.findall(listing):
        real = Path(path).resolve()
        if _NAMES.fullmatch(name) and "64" in kind and real.name.endswith(f".so.{version}"):
            yield name, real


def _copy(place: Path, found: dict[str, Path], programs: Iterable[str]) -> None:
    shutil.rmtree(place, ignore_errors=True)
    for kind in ("lib", "bin"):
        (place / kind).mkdir(parents=True)
    for name, real in found.items():
        target = place / "lib" / real.name
        if not target.exists():
            shutil.copyfile(real, target)
            target.chmod(0o755)
        if name != real.name:
            (place / "lib" / name).symlink_to(real.name)
    for program in (Path(text) for text in programs):
        if program.is_file():
            shutil.copyfile(program, place / "bin" / program.name)
            (place / "bin" / program.name).chmod(0o755)
    for path in (place.parent, place, place / "lib", place / "bin"):
        path.chmod(0o755)


def _put_over(folder: Path, version: str) -> None:
    """The new version in the place of the old one. A program that has the old one mapped keeps it."""
    (folder / CONF).write_text(f"{INSIDE}/lib\n")
    (folder / CONF).chmod(0o644)
    for kind in ("bin", "lib"):  # `lib` last: by it the version is told
        fresh = folder / f".{kind}.new"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(f"{version}/{kind}")
        fresh.rename(folder / kind)
    for old in folder.iterdir():
        if old.is_dir() and not old.is_symlink() and old.name != version:
            shutil.rmtree(old, ignore_errors=True)


def _runtime() -> bool:
    program = shutil.which(_CLI) or shutil.which(_CLI, path="/snap/lxd/current/bin")
    if not program:
        return False
    try:
        done = subprocess.run([program, "info"], capture_output=True, timeout=10, check=False)  # noqa: S603 - the host's
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
