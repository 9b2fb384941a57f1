"""What the host itself runs for Berth: its port range, the rules of the bridge, the agent."""

from __future__ import annotations

import json
from dataclasses import dataclass
from urllib.parse import urlsplit

from app.drivers.system import System
from app.services.hostinit import firewall, units
from app.services.hostinit.step import Action, Command, File, Trouble
from app.services.hostinit.wish import Wish

RULES = "/etc/berth/firewall.nft"
ENVIRONMENT = "/etc/berth/agent.env"
_SYSCTL = "/etc/sysctl.d/60-berth.conf"
_RESERVED = "net.ipv4.ip_local_reserved_ports"
_UNITS = "/etc/systemd/system"
AGENT_UNIT = f"{_UNITS}/berth-agent.service"
_NEEDED = ("DATABASE_URL", "REDIS_AGENT_URL")
_DATA = {"BERTH_DATA": "/var/lib/berth"}  # as its unit has it
_SOCKETS = ("/var/snap/lxd/common/lxd/unix.socket", "/var/lib/lxd/unix.socket")


@dataclass(frozen=True)
class Ports:
    """The kernel gives the ports of machines to nobody for connections of the host's own."""

    wish: Wish
    title: str = "port range"

    def look(self, system: System) -> str:
        """Whether it is reserved now, and after a restart."""
        kept = (system.read(_SYSCTL) or "").partition("=")[2].strip()
        if self._range in kept.split(",") and self._range in self._reserved(system):
            return f"{self._range} reserved"
        return ""

    def actions(self, system: System) -> list[Action]:
        """Reserve it, beside what is reserved already."""
        every = ",".join([*(text for text in self._reserved(system) if text != self._range), self._range])
        return [File(_SYSCTL, f"{_RESERVED} = {every}\n"), Command(("sysctl", "--load", _SYSCTL))]

    @property
    def _range(self) -> str:
        first, last = self.wish.first_port, self.wish.last_port
        return f"{first}-{last}" if first < last else str(first)

    def _reserved(self, system: System) -> list[str]:
        done = system.run(["sysctl", "--values", _RESERVED])
        return [text for text in done.text.strip().split(",") if text]


@dataclass(frozen=True)
class Firewall:
    """The rules of the bridge, before LXD starts anything."""

    wish: Wish
    title: str = "firewall of the bridge"

    def look(self, system: System) -> str:
        """Whether the rules are those, and in force."""
        same = all(system.read(file.path) == file.text for file in self._files)
        # The unit stays active when somebody flushes all rules.
        loaded = system.run(["nft", "list", "table", "inet", firewall.TABLE]).ok
        in_force = same and loaded and _runs(system, "berth-firewall.service")
        return f"table inet {firewall.TABLE} is in force, and will be after a restart" if in_force else ""

    def actions(self, _system: System) -> list[Action]:
        """Write and load them."""
        return [*self._files, *_enable("berth-firewall.service")]

    @property
    def _rules(self) -> str:
        return firewall.rules(self.wish.bridge, self.wish.opened, self.wish.closed, rate=self.wish.rate)

    @property
    def _files(self) -> list[File]:
        unit = units.FIREWALL.format(rules=RULES, table=firewall.TABLE)
        return [
            File(RULES, self._rules),
            File(f"{_UNITS}/berth-firewall.service", unit),
            File(f"{_UNITS}/nftables.service.d/berth.conf", units.BESIDE_NFTABLES),
        ]


@dataclass(frozen=True)
class Known:
    """Berth knows the host. What the agent needs for that is taken from the environment, and kept."""

    wish: Wish
    title: str = "host in Berth"

    def look(self, system: System) -> str:
        """Whether it is in the database that the agent uses."""
        kept = environment(system)
        if not all(kept.get(name) for name in _NEEDED) or kept != _wanted(system, kept):
            return ""
        done = system.run([self.wish.berth, "host", "list", "--json"], more=kept | _DATA)
        if not done.ok:
            raise Trouble(f"Berth's database cannot be asked: {done.complaint[:300]}", f"Look at {ENVIRONMENT}.")
        ports = {host["name"]: host.get("ports") for host in json.loads(done.text)}
        if self.wish.name not in ports:
            return ""
        others = f", with the ports {ports[self.wish.name]}: berth host set {self.wish.name} --ports changes them"
        return "known" + (others if ports[self.wish.name] != self._ports else "")

    def actions(self, system: System) -> list[Action]:
        """Keep the addresses, and add the host."""
        wanted = _wanted(system, environment(system))
        if missing := [name for name in _NEEDED if not wanted.get(name)]:
            todo = (
                f"Set {' and '.join(missing)} (or write them to {ENVIRONMENT}, one NAME=VALUE a line), and run again."
            )
            raise Trouble(f"where Berth's database and Valkey are is not known: no {', '.join(missing)}", todo)
        text = "".join(f"{name}={_quoted(name, value)}\n" for name, value in sorted(wanted.items()))
        add = (self.wish.berth, "host", "add", self.wish.name, "--lxd", _socket(system), "--ports", self._ports)
        listed = system.run([self.wish.berth, "host", "list", "--json"], more=wanted | _DATA)
        known = listed.ok and self.wish.name in {host["name"] for host in json.loads(listed.text)}
        # An agent that runs has what the file said when it was started.
        again = system.exists(AGENT_UNIT) and system.read(ENVIRONMENT) != text
        return [
            File(ENVIRONMENT, text, 0o600),
            *([] if known else [Command(add, more=wanted | _DATA)]),
            *([Command(("systemctl", "try-restart", "berth-agent.service"), 200)] if again else []),
        ]

    @property
    def _ports(self) -> str:
        return f"{self.wish.first_port}-{self.wish.last_port}"


@dataclass(frozen=True)
class Agent:
    """The agent runs, and does so after a restart."""

    wish: Wish
    title: str = "agent"

    def look(self, system: System) -> str:
        """Whether it runs as this version would have it."""
        same = system.read(self._unit.path) == self._unit.text
        return "berth-agent.service runs" if same and _runs(system, "berth-agent.service") else ""

    def actions(self, _system: System) -> list[Action]:
        """Write its unit, and start it."""
        return [self._unit, *_enable("berth-agent.service")]

    @property
    def _unit(self) -> File:
        text = units.AGENT.format(name=self.wish.name, berth=self.wish.berth, environment=ENVIRONMENT)
        return File(AGENT_UNIT, text)


def environment(system: System) -> dict[str, str]:
    """What the agent's file says: what its programs have to be run with."""
    lines = (line.partition("=") for line in (system.read(ENVIRONMENT) or "").splitlines() if not line.startswith("#"))
    return {name.strip(): _plain(value.strip()) for name, _, value in lines if name.strip() and value.strip()}


def _wanted(system: System, kept: dict[str, str]) -> dict[str, str]:
    given = {name: system.environ(name) for name in ("DATABASE_URL", "REDIS_AGENT_URL") if system.environ(name)}
    return {**kept, **given}


def _quoted(name: str, value: str) -> str:
    if not value.isprintable() or (name in _NEEDED and not urlsplit(value).scheme):
        raise Trouble(f"{name} is no address", "Write it like postgresql://… or redis://…, on one line.")
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _plain(value: str) -> str:
    if len(value) > 1 and value[0] == value[-1] == '"':
        return value[1:-1].replace('\\"', '"').replace("\\\\", "\\")
    return value


def _socket(system: System) -> str:
    places = [f"{system.environ('LXD_DIR')}/unix.socket"] if system.environ("LXD_DIR") else list(_SOCKETS)
    return next((place for place in places if system.exists(place)), places[-1])


def _runs(system: System, unit: str) -> bool:
    return all(system.run(["systemctl", asked, "--quiet", unit]).ok for asked in ("is-enabled", "is-active"))


def _enable(unit: str) -> list[Action]:
    """Restart, too: what runs may be what was there before. The agent is up when its first pass has ended."""
    commands = (("daemon-reload",), ("enable", unit), ("restart", unit))
    return [Command(("systemctl", *words), 200) for words in commands]
