"""The host's GPUs, also for an agent that is started while LXD is away."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from app.drivers.base import HostUnreachable
from app.drivers.fake import FakeLxd
from workers import known_gpus
from workers.known_gpus import KnownGpus


@pytest.fixture
def lxd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeLxd:
    made = FakeLxd(tmp_path / "lab.json", gpus=2)
    listed = [replace(gpu, drm=frozenset({(226, gpu.minor), (226, 128 + gpu.minor)})) for gpu in made.gpus()]
    monkeypatch.setattr(FakeLxd, "gpus", lambda _self: listed)
    return made


def away(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_self: FakeLxd) -> None:
        raise HostUnreachable("List GPUs", "refused")

    monkeypatch.setattr(FakeLxd, "gpus", fail)


def test_what_one_agent_knew_the_next_knows_while_lxd_is_away(
    lxd: FakeLxd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "agents" / "lab01.gpus"
    known = KnownGpus(lxd, kept)()
    assert len(known) == 2
    away(monkeypatch)
    assert KnownGpus(lxd, kept)() == known, "DRM nodes and all"
    assert KnownGpus(lxd)() == KnownGpus(lxd, tmp_path / "none")() == ()


@pytest.mark.parametrize("text", ["", "{}", "[", '["another boot", []]'])
def test_after_a_reboot_or_half_written_it_is_of_no_use(
    lxd: FakeLxd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    kept, boot = tmp_path / "lab01.gpus", tmp_path / "boot_id"
    boot.write_text("this boot\n")
    monkeypatch.setattr(known_gpus, "BOOT_ID", boot)
    assert KnownGpus(lxd, kept)()
    boot.write_text("the next\n")
    if text:
        kept.write_text(text)
    away(monkeypatch)
    assert KnownGpus(lxd, kept)() == ()


def test_what_is_no_text_is_written_anew(lxd: FakeLxd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = tmp_path / "lab01.gpus"
    kept.write_bytes(b"\xff\xfe\x00")
    known = KnownGpus(lxd, kept)()
    assert len(known) == 2
    away(monkeypatch)
    assert KnownGpus(lxd, kept)() == known


def test_a_full_disk_keeps_nobody_from_knowing(lxd: FakeLxd, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert len(KnownGpus(lxd, tmp_path / "file" / "lab01.gpus")()) == 2
