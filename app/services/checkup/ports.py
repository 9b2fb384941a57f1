"""Ports of the host that instances want for themselves, and cannot have: a stopped one does then not start."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from app.drivers.facts import HostFacts, InstanceFacts, Listener
from app.services.checkup.finding import BAD, Finding
from app.services.checkup.instances import label, lxc, origin

_LISTEN = re.compile(r"(tcp|udp):(\[[0-9a-fA-F:.]*\]|[^:\[\]]*):([0-9,-]{1,200})")
_ALL = {"", "*", "0.0.0.0", "::"}  # noqa: S104 - nothing is bound here


@dataclass(frozen=True)
class _Claim:
    instance: InstanceFacts
    device: str
    protocol: str
    address: str
    ports: range
    nat: bool

    def meets(self, protocol: str, address: str, ports: range) -> int | None:
        """The first port that both would listen on."""
        first, end = max(self.ports.start, ports.start), min(self.ports.stop, ports.stop)
        same = self.address == address or self.address in _ALL or address in _ALL
        return first if protocol == self.protocol and same and first < end else None


def judge(facts: HostFacts) -> Iterator[Finding]:
    """Ports that two devices claim, and ports of stopped instances that something else on the host has taken."""
    claims = [claim for instance in facts.instances for claim in _claims(instance)]
    for claim in claims:
        if clash := _clash(claim, claims, facts.listeners or frozenset()):
            port, who = clash
            starts = "" if claim.instance.status == "running" else ": it cannot start until the port is free"
            wants = f"its proxy device {claim.device} wants port {port}/{claim.protocol} of the host"
            fix = f"See who has it: ss -Hlnp 'sport = :{port}'. Or take another port: {_other(facts, claim)}"
            yield Finding(BAD, label(claim.instance), f"{wants}, which {who}{starts}", fix)


def _clash(claim: _Claim, claims: Iterable[_Claim], taken: Iterable[Listener]) -> tuple[int, str] | None:
    runs = False
    for other in claims:
        if other is claim:
            continue
        port = claim.meets(other.protocol, other.address, other.ports)
        if port is not None:
            if other.instance is claim.instance:
                return port, f"its device {other.device} wants too"
            return port, f"{label(other.instance)} ({other.device}) {'has' if _runs(other) else 'wants too'}"
        runs = runs or _runs(other)
    if _runs(claim) or claim.nat:  # it has the port itself; NAT rules take none
        return None
    for found in sorted(taken, key=lambda one: (one.port, one.address)):
        port = claim.meets(found.protocol, found.address, range(found.port, found.port + 1))
        if port is not None:
            return port, f"another program listens on ({found.address})"
    return None


def _runs(claim: _Claim) -> bool:
    return claim.instance.status in {"running", "frozen"}


def _claims(instance: InstanceFacts) -> Iterator[_Claim]:
    for name, device in instance.devices.items():
        if device.get("type") != "proxy" or device.get("bind", "host") not in {"host", ""}:
            continue
        if match := _LISTEN.fullmatch(device.get("listen", "")):
            for part in match[3].split(","):
                first, _, last = part.partition("-")
                if first and (not _ or last):
                    ports = range(int(first), int(last or first) + 1)
                    nat = device.get("nat", "").lower() in {"true", "1", "yes", "on"}
                    yield _Claim(instance, name, match[1], match[2].strip("[]"), ports, nat)


def _other(facts: HostFacts, claim: _Claim) -> str:
    listen = f"listen={claim.protocol}:{claim.address or '0.0.0.0'}:PORT"  # noqa: S104
    if profile := origin(facts, claim.instance, claim.device):
        return lxc(claim.instance, f"profile device set {profile} {claim.device} {listen}")
    return lxc(claim.instance, f"config device set {claim.instance.name} {claim.device} {listen}")
