"""Who put an instance's devices there."""

from __future__ import annotations

from typing import Any

import pytest

from app.drivers.lxd.origins import origins

GPU = "gpu-0000-01-00-0"
OURS = {"user.berth.owner": "li"}
CARD, DISK = {"type": "gpu", "pci": "0000:01:00.0"}, {"type": "disk", "source": "/data", "path": "/data"}


def found(own: dict[str, Any], config: dict[str, str], profiles: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    return {"devices": own, "config": config, "profiles": profiles, "expanded_devices": {**own, **more}}


@pytest.mark.parametrize(
    ("name", "device", "config", "expected"),
    [
        (GPU, CARD, {**OURS, f"user.berth.{GPU}": "v1 1 1 1"}, "berth"),
        (GPU, CARD, OURS, "hand"),  # the name alone anybody can give
        (GPU, CARD, {}, "hand"),
        ("mygpu", CARD, OURS, "hand"),
        ("port-ssh", {"type": "proxy"}, OURS, "berth"),
        ("port-web", {"type": "proxy"}, OURS, "hand"),
        ("nvidia-lib", DISK, OURS, "berth"),
        ("share-00000007", DISK, OURS, "berth"),
        ("data", DISK, OURS, "hand"),
        ("root", {"type": "disk", "path": "/", "pool": "p"}, OURS, "berth"),
        ("root", {"type": "disk", "path": "/", "pool": "p"}, {}, "hand"),
        ("eth0", {"type": "nic"}, OURS, "berth"),
    ],
)
def test_of_its_own(name: str, device: dict[str, str], config: dict[str, str], expected: str) -> None:
    assert origins(found({name: device}, config), {"default": {name}}) == {name: expected}


def test_of_a_profile_it_is_the_last_that_has_it() -> None:
    profiles = {"default": {"root", "card"}, "gpus": {"card"}, "other": {"eth9"}}
    seen = found({}, OURS, ("default", "gpus", "other"), card=CARD, root=DISK, odd=DISK)
    assert origins(seen, profiles) == {"card": "profile:gpus", "root": "profile:default", "odd": "profile:"}
