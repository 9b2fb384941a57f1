"""Two labs as members of one LXD cluster: each with its own kernel-side GPUs and its own part of the pool."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.lab.image import image
from tests.lab.lab import Lab

PASSWORD = "of the test's cluster"


@contextmanager
def cluster(folder: Path, *names: str) -> Iterator[list[Lab]]:
    """Members with these names and a GPU each, all with the image `base`."""
    made: list[Lab] = []
    try:
        for name in names:
            lab = Lab(folder / name, gpus=1)
            made.append(lab)
            lab.up(bare=True)
            lab.preseed(_first(name) if len(made) == 1 else _joining(name, made[0]))
        made[0].lxc("image", "import", str(image()), "--alias", "base", timeout=300)
        yield made
    finally:
        for lab in reversed(made):
            lab.down()


def _first(name: str) -> dict[str, Any]:
    root = {"type": "disk", "path": "/", "pool": "pool"}
    config = {"core.https_address": _address(), "core.trust_password": PASSWORD, "images.auto_update_interval": "0"}
    return {
        "config": config,
        "storage_pools": [{"name": "pool", "driver": "btrfs", "config": {"size": "8GiB"}}],
        "profiles": [{"name": "default", "devices": {"root": root}}],
        "cluster": {"server_name": name, "enabled": True},
    }


def _joining(name: str, first: Lab) -> dict[str, Any]:
    found = json.loads(first.lxc("query", "/1.0"))
    size = [{"entity": "storage-pool", "name": "pool", "key": "size", "value": "8GiB"}]
    return {
        "cluster": {
            "enabled": True,
            "server_name": name,
            "server_address": _address(),
            "cluster_address": found["config"]["core.https_address"],
            "cluster_certificate": (first.lxd_dir / "cluster.crt").read_text(),
            "cluster_password": PASSWORD,
            "member_config": size,
        }
    }


def _address() -> str:
    """A port of this machine's that nobody has at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return f"127.0.0.1:{found.getsockname()[1]}"
