"""The directory that machines get NVIDIA's libraries from: of the loaded driver's version, all of it or the old one."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.drivers.libraries import Way, Why
from app.drivers.lxd import libraries


class Driver:
    """A host's libraries and its linker's list of them."""

    def __init__(self, folder: Path, version: str) -> None:
        self.folder, self.version = folder, version
        folder.mkdir(exist_ok=True)
        self.lines = ["2 libs found in cache `/etc/ld.so.cache'"]
        for name in ("libcuda.so", "libnvidia-ml.so"):
            self.add(f"{name}.1", f"{name}.{version}")

    def add(self, name: str, file: str, kind: str = "libc6,x86-64") -> None:
        (self.folder / file).write_text(f"{file} of {self.version}")
        (self.folder / name).unlink(missing_ok=True)
        (self.folder / name).symlink_to(file)
        self.lines.append(f"\t{name} ({kind}) => {self.folder / name}")

    def listing(self) -> str:
        return "\n".join(self.lines) + "\n"

    def program(self) -> str:
        (self.folder / "nvidia-smi").write_text(self.version)
        return str(self.folder / "nvidia-smi")


@pytest.fixture(autouse=True)
def no_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "_runtime", lambda: False)


def test_libraries_of_the_loaded_driver_and_no_others_are_copied(tmp_path: Path) -> None:
    driver = Driver(tmp_path / "host", "580.95.05")
    driver.add("libnvidia-old.so.1", "libnvidia-old.so.550.1")
    driver.add("libcudart.so.12", "libcudart.so.12.580.95.05")
    driver.add("libnvidia-tls.so.1", "libnvidia-tls.so.580.95.05", kind="libc6")  # of 32 bits
    assert libraries.fill(tmp_path, "580.95.05", driver.listing(), [driver.program(), "/usr/bin/no-such"])
    folder = tmp_path / libraries.FOLDER
    assert sorted(path.name for path in (folder / "lib").iterdir()) == [
        "libcuda.so.1", "libcuda.so.580.95.05", "libnvidia-ml.so.1", "libnvidia-ml.so.580.95.05",
    ]  # fmt: skip
    assert (folder / "lib/libcuda.so.1").readlink() == Path("libcuda.so.580.95.05")
    assert (folder / "bin/nvidia-smi").stat().st_mode & 0o777 == 0o755
    assert (folder / libraries.CONF).read_text() == "/usr/local/nvidia/lib\n"
    assert libraries.mounted_version(tmp_path) == "580.95.05"


def test_a_new_driver_comes_in_the_place_of_the_old_one_in_the_same_directory(tmp_path: Path) -> None:
    old = Driver(tmp_path / "old", "570.1.2")
    assert libraries.fill(tmp_path, "570.1.2", old.listing(), ())
    folder = tmp_path / libraries.FOLDER
    inode, mapped = folder.stat().st_ino, (folder / "lib/libcuda.so.1").open()
    new = Driver(tmp_path / "new", "580.95.05")
    assert libraries.fill(tmp_path, "580.95.05", new.listing(), ())
    assert folder.stat().st_ino == inode
    assert (folder / "lib/libcuda.so.1").read_text() == "libcuda.so.580.95.05 of 580.95.05"
    assert mapped.read() == "libcuda.so.570.1.2 of 570.1.2"
    assert not (folder / "570.1.2").exists()


@pytest.mark.parametrize("version", ["", "../580", "580.95.06"])
def test_where_the_host_has_none_of_that_version_nothing_is_touched(tmp_path: Path, version: str) -> None:
    driver = Driver(tmp_path / "host", "580.95.05")
    assert libraries.fill(tmp_path, "580.95.05", driver.listing(), ())
    assert not libraries.fill(tmp_path, version, driver.listing(), ())
    assert libraries.mounted_version(tmp_path) == "580.95.05"


def test_a_copy_that_was_cut_short_is_made_again(tmp_path: Path) -> None:
    driver = Driver(tmp_path / "host", "580.95.05")
    half = tmp_path / libraries.FOLDER / "580.95.05" / "lib"
    half.mkdir(parents=True)
    (half / "libcuda.so.580.95.05").write_text("half")
    assert libraries.mounted_version(tmp_path) == ""
    assert libraries.fill(tmp_path, "580.95.05", driver.listing(), ())
    assert (half / "libcuda.so.1").read_text() == "libcuda.so.580.95.05 of 580.95.05"


def test_the_way_is_chosen_by_what_the_host_can_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver, nothing = Driver(tmp_path / "host", "580.95.05"), Driver(tmp_path / "other", "1.1")

    def bring(
        folder: Path | None, has: str, files: Driver, wanted: Way | None = None, version: str = "580.95.05"
    ) -> tuple[Way, Why]:
        brought = libraries.bring(folder, version, has.split(), files.listing, wanted)
        assert (brought.version, brought.cdi) == (version, "gpu_cdi_hotplug" in has)
        return brought.way, brought.why

    has = "nvidia_runtime gpu_cdi_hotplug"
    assert bring(None, has, driver) == (Way.INSTALL, Why.REMOTE)
    assert bring(tmp_path, has, driver, version="") == (Way.INSTALL, Why.NO_DRIVER)
    assert bring(tmp_path, has, nothing) == (Way.INSTALL, Why.NO_FILES)
    assert libraries.for_new(tmp_path) == ({}, {})
    assert bring(tmp_path, has, driver) == (Way.MOUNT, Why.NO_TOOLS)
    config, devices = libraries.for_new(tmp_path)
    assert config == {}
    assert [(device["path"], device["readonly"]) for device in devices.values()] == [
        ("/usr/local/nvidia", "true"), ("/etc/ld.so.conf.d/00-berth-nvidia.conf", "true"),
    ]  # fmt: skip
    monkeypatch.setattr(libraries, "_runtime", lambda: True)
    assert bring(tmp_path, "", driver) == (Way.MOUNT, Why.NO_RUNTIME)
    assert bring(tmp_path, has, driver) == (Way.RUNTIME, Why.BEST)
    config, devices = libraries.for_new(tmp_path)
    assert (config["nvidia.runtime"], devices) == ("true", {})


def test_what_an_admin_chose_is_done_if_the_host_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver(tmp_path / "host", "580.95.05")

    def bring(wanted: Way, *has: str) -> tuple[Way, Why]:
        brought = libraries.bring(tmp_path, "580.95.05", has, driver.listing, wanted)
        return brought.way, brought.why

    assert bring(Way.RUNTIME) == (Way.MOUNT, Why.NO_RUNTIME)  # it would keep each machine from starting
    assert bring(Way.RUNTIME, "nvidia_runtime") == (Way.MOUNT, Why.NO_TOOLS)
    monkeypatch.setattr(libraries, "_runtime", lambda: True)
    assert bring(Way.RUNTIME, "nvidia_runtime") == (Way.RUNTIME, Why.CHOSEN)
    assert bring(Way.MOUNT, "nvidia_runtime") == (Way.MOUNT, Why.CHOSEN)
    assert libraries.for_new(tmp_path)[1]
    assert bring(Way.INSTALL, "nvidia_runtime") == (Way.INSTALL, Why.CHOSEN)
    assert libraries.for_new(tmp_path) == ({}, {})


@pytest.mark.parametrize("way", [Way.RUNTIME, Way.INSTALL])
def test_machines_that_have_the_directory_get_a_new_driver_there_whatever_new_machines_get(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: Way
) -> None:
    monkeypatch.setattr(libraries, "_runtime", lambda: True)
    old, new = Driver(tmp_path / "old", "570.1.2"), Driver(tmp_path / "new", "580.95.05")
    libraries.bring(tmp_path, "570.1.2", ["nvidia_runtime"], old.listing, Way.MOUNT)
    assert libraries.bring(tmp_path, "580.95.05", ["nvidia_runtime"], new.listing, way).way is way
    assert libraries.mounted_version(tmp_path) == "580.95.05"
    assert libraries.decided(tmp_path) is way
