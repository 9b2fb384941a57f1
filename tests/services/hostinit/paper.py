"""A workstation on paper: its files in a directory, its programs answered by what the test says, and written down."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from app.drivers.system import NOT_FOUND, Done, System

Answer = Callable[[Sequence[str]], Done | None]


class PaperSystem(System):
    """Programs do what a fresh Debian's would, as far as the steps can tell."""

    def __init__(self, root: Path, distribution: str = "debian", **more: str) -> None:
        super().__init__(root, more)
        self.ran: list[str] = []
        self.packages: set[str] = set()
        self.units: set[str] = set()
        self.sysctl = ""
        self.lxd: dict[str, Any] = {}
        self.hosts: dict[str, str] = {}  # their ports
        self.flushed = False  # somebody loaded /etc/nftables.conf, which begins with that
        self.modules = {"btrfs"}  # that its kernel has
        self.tools: set[str] = set()  # of file systems
        self.broken: dict[str, str] = {}  # command: what it says instead of working
        self.write("/etc/os-release", f'ID={distribution}\nVERSION_ID="12"\n')

    def environ(self, name: str) -> str:
        return self._environment.get(name, "") if name in {"DATABASE_URL", "REDIS_AGENT_URL"} else ""

    def run(self, argv: Sequence[str], limit: float = 60, more: Mapping[str, str] | None = None) -> Done:
        text = " ".join(argv)
        for begin, said in self.broken.items():
            if text.startswith(begin):
                return Done(1, complaint=said)
        done = getattr(self, f"_{Path(argv[0]).name.replace('-', '_')}")(list(argv[1:]))
        if not done.text and argv[1] != "query":  # what asks tells something; what does something does not
            self.ran.append(text)
        return done

    def _dpkg_query(self, words: list[str]) -> Done:
        return Done(0, "\n".join(f"{name} installed" for name in self.packages) or "-")

    def _apt_get(self, words: list[str]) -> Done:
        if "install" in words:
            self.packages |= set(words[3:])
            if "lxd" in words:
                self.lxd = {"": {"environment": {"server_version": "5.0.2", "storage_supported_drivers": []}}}
                self.lxd["profiles/default"] = {"devices": {}}
        return Done(0)

    def _snap(self, words: list[str]) -> Done:
        self.lxd = {"": {"environment": {"server_version": "5.21.7", "storage_supported_drivers": [{"Name": "zfs"}]}}}
        self.lxd["profiles/default"] = {"devices": {}}
        return Done(0)

    def _lxd(self, words: list[str]) -> Done:
        return Done(0 if self.lxd else NOT_FOUND)

    def _lxc(self, words: list[str]) -> Done:
        if not self.lxd:
            return Done(NOT_FOUND, complaint="lxc: no such program")
        pairs = dict(word.split("=", 1) for word in words if "=" in word)
        if words[0] == "query":
            found = self.lxd.get(words[1].removeprefix("/1.0").lstrip("/"))
            return Done(1, complaint="not found") if found is None else Done(0, json.dumps(found))
        if words[:2] == ["storage", "create"]:
            self.lxd["storage-pools?recursion=1"] = [{"name": words[2], "driver": words[3]}]
        elif words[0] == "network":
            name = words[2]
            found = self.lxd.setdefault(f"networks/{name}", {"managed": True, "config": {}})
            found["config"].update(pairs)
        elif words[0] == "profile":
            self.lxd["profiles/default"]["devices"][words[4]] = {"type": words[5], **pairs}
        elif words[0] == "project":
            self.lxd["projects/default"] = {"config": pairs}
        return Done(0)

    def _modinfo(self, words: list[str]) -> Done:
        return Done(0, "-") if words[0] in self.modules else Done(1, "-", f"modinfo: no {words[0]}")

    def _zfs(self, words: list[str]) -> Done:
        return self._tool("zfs")

    def _btrfs(self, words: list[str]) -> Done:
        return self._tool("btrfs")

    def _lvm(self, words: list[str]) -> Done:
        return self._tool("lvm")

    def _tool(self, name: str) -> Done:
        return Done(0, "-") if name in self.tools else Done(NOT_FOUND, "-", f"{name}: no such program")

    def _lsblk(self, words: list[str]) -> Done:
        return Done(0, '{"blockdevices": []}')

    def _ip(self, words: list[str]) -> Done:
        return Done(0, json.dumps([{"dst": "default"}, {"dst": "10.77.0.0/16"}, {"dst": "10.0.0.0/8"}]))

    def _systemctl(self, words: list[str]) -> Done:
        if words[0].startswith("is-"):
            return Done(0 if words[2] in self.units else 1, "-")
        self.units |= set(words[1:])
        self.flushed = self.flushed and words != ["restart", "berth-firewall.service"]
        return Done(0)

    def _sysctl(self, words: list[str]) -> Done:
        if words[0] == "--values":
            return Done(0, self.sysctl + "\n")
        self.sysctl = (self.read(words[1]) or "").partition("=")[2].strip()
        return Done(0)

    def _berth(self, words: list[str]) -> Done:
        if words[:2] == ["host", "add"]:
            self.hosts[words[2]] = words[words.index("--ports") + 1]
            return Done(0)
        return Done(0, json.dumps([{"name": name, "ports": ports} for name, ports in self.hosts.items()]))

    def _nft(self, words: list[str]) -> Done:
        return Done(0 if "berth-firewall.service" in self.units and not self.flushed else 1, "-")
