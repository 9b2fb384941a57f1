"""The network between machines: none reaches another, none is another, and of the host only what they need."""

from __future__ import annotations

import json
import socket
import subprocess
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from app.drivers import this_host
from app.drivers.base import DENIED_CALLS, InstanceSpec
from app.drivers.doors import Door
from app.drivers.knocking import knock_here
from app.drivers.lxd import network
from app.services import checkup
from app.services.checkup import BAD, OK, WARN, Known
from app.services.hostinit.firewall import rules
from tests.lab.lab import Lab
from tests.lab.looking import connect
from tests.runtime.running import wait_for

pytestmark = pytest.mark.lab

CONFINED = {
    "security.privileged": "false", "security.nesting": "false", "security.idmap.isolated": "true",
    "security.devlxd": "false", "security.protection.delete": "true", "security.syscalls.deny": DENIED_CALLS,
    "security.syscalls.deny_default": "true", "security.syscalls.deny_compat": "true", "boot.autostart": "false",
    "limits.cpu": "1", "limits.memory": "256MiB", "limits.memory.enforce": "hard", "limits.memory.swap": "false",
    "limits.processes": "4096",
}  # fmt: skip

# Tries to connect to each ADDRESS:PORT from the address SOURCE; prints how each went.
KNOCK = """
import json, socket, sys
answers = {}
for place in sys.argv[2:]:
    host, port = place.rsplit(":", 1)
    knock = socket.socket()
    knock.settimeout(1)
    try:
        knock.bind((sys.argv[1], 0))
        knock.connect((host, int(port)))
        answers[place] = "open"
    except TimeoutError:
        answers[place] = "silence"
    except OSError as error:
        answers[place] = error.strerror
print(json.dumps(answers))
"""

# Tells everybody that an address is this machine's.
CLAIM = """
import socket, sys
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
wire.bind(("eth0", 0))
own, address = wire.getsockname()[4], socket.inet_aton(sys.argv[1])
claim = b"\\x00\\x01\\x08\\x00\\x06\\x04\\x00\\x02" + own + address + b"\\xff" * 6 + address
for _ in range(5):
    wire.send(b"\\xff" * 6 + own + b"\\x08\\x06" + claim)
print("claimed")
"""


# Gives everybody back what they send, on each of these ports.
ECHO = """
import socketserver, sys, threading
class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(1 << 16):
            self.request.sendall(data)
socketserver.ThreadingTCPServer.allow_reuse_address = True
servers = [socketserver.ThreadingTCPServer(("", int(port)), Echo) for port in sys.argv[1:]]
for server in servers:
    threading.Thread(target=server.serve_forever).start()
"""

# Sends so many bytes to ADDRESS:PORT and waits until they are back; prints how many seconds that took.
SEND = """
import socket, sys, threading, time
address, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
wire = socket.create_connection((address, port), timeout=30)
began = time.monotonic()
threading.Thread(target=wire.sendall, args=(bytes(count),)).start()
while count:
    count -= len(wire.recv(1 << 16))
print(time.monotonic() - began)
"""


@pytest.fixture(scope="module")
def host(lab_directory: Path) -> Iterator[Lab]:
    with Lab(lab_directory / "bridged", gpus=1, bridge=True) as lab:
        yield lab


@pytest.fixture(scope="module")
def two(host: Lab) -> list[tuple[str, str]]:
    """Two machines that Berth made, and their addresses."""
    names = [host.unique(), host.unique()]
    with ThreadPoolExecutor() as pool:  # at once: they must not get the same address
        list(pool.map(lambda name: connect(host).create(spec(name), lambda _step, _percent: None), names))
    found = [(name, host.lxc("config", "device", "get", name, "eth0", "ipv4.address").strip()) for name in names]
    for name, address in found:
        wait_for(lambda name=name, address=address: address in host.run(name, "hostname", "-I"), 30, f"{name} is there")
    return found


def spec(name: str) -> InstanceSpec:
    return InstanceSpec(name, "base", cpus=1, memory_mib=256, disk_gib=2, owner="alice")


def neighbour(host: Lab, address: str) -> str:
    """Who has the address, as the host's kernel knows."""
    socket.create_connection((address, 22), timeout=20).close()
    known = ["ip", "-j", "neighbour", "show", address, "dev", host.bridge]
    return json.loads(subprocess.run(known, check=True, capture_output=True).stdout)[0]["lladdr"]


def knock(host: Lab, name: str, *places: str, source: str = "") -> dict[str, str]:
    return json.loads(host.run(name, "python3", "-c", KNOCK, source, *places, timeout=30))


@contextmanager
def walled(host: Lab, *opened: str, rate: int = 0) -> Iterator[str]:
    """The host with the rules that `berth host init` gives it, for this lab's bridge alone; the name of the table."""
    table = f"berth_{host.bridge}"
    subprocess.run(["nft", "-f", "-"], input=rules(host.bridge, opened, table=table, rate=rate), text=True, check=True)
    try:
        yield table
    finally:
        subprocess.run(["nft", "delete", "table", "inet", table], check=True)


@contextmanager
def listening(address: str) -> Iterator[int]:
    """A service of the host's that listens on all its addresses, as PostgreSQL, Valkey, LXD or the portal may."""
    with socket.create_server((address, 0)) as server:
        yield server.getsockname()[1]


def own_addresses(host: Lab) -> list[str]:
    """The host's address on the machines' bridge, and one of those by which the lab knows it."""
    listed = subprocess.run(["ip", "-j", "-4", "address"], check=True, capture_output=True).stdout
    links = {link["ifname"]: link.get("addr_info", []) for link in json.loads(listed)}
    others = [one["local"] for name, found in sorted(links.items()) if name != host.bridge for one in found]
    return [host.gateway, *[address for address in others if not address.startswith("127.")][:1]]


@pytest.fixture(scope="module")
def away(host: Lab) -> Iterator[str]:
    """The address of another computer beyond the host, in a private network, that listens on port 8080 and 25."""
    space, near, far = f"far-{host.bridge}", f"n{host.bridge}", f"f{host.bridge}"
    number = zlib.crc32(host.bridge.encode())
    net = f"172.{16 + number % 16}.{number // 16 % 256}"
    ip = ["ip", "-n", space]
    for command in (
        ["ip", "netns", "add", space],
        ["ip", "link", "add", near, "type", "veth", "peer", "name", far, "netns", space],
        ["ip", "addr", "add", f"{net}.1/24", "dev", near],
        ["ip", "link", "set", near, "up"],
        [*ip, "addr", "add", f"{net}.2/24", "dev", far],
        [*ip, "link", "set", far, "up"],
        [*ip, "link", "set", "lo", "up"],
    ):
        subprocess.run(command, check=True)
    server = subprocess.Popen(["ip", "netns", "exec", space, "python3", "-c", ECHO, "25", "8080"])
    try:
        yield f"{net}.2"
    finally:
        server.kill()
        server.wait()
        subprocess.run(["ip", "link", "delete", near], check=False)
        subprocess.run(["ip", "netns", "delete", space], check=False)


def test_no_machine_reaches_another(host: Lab, two: list[tuple[str, str]]) -> None:
    (one, _), (other, address) = two
    wait_for(lambda: knock(host, other, f"{address}:22") == {f"{address}:22": "open"}, 30, "it answers itself")
    assert knock(host, one, f"{address}:22") == {f"{address}:22": "silence"}


def test_no_machine_is_another(host: Lab, two: list[tuple[str, str]]) -> None:
    (one, own), (_, address) = two
    gateway = f"{host.gateway}:53"
    neighbours = neighbour(host, address)
    host.run(one, "ip", "address", "add", f"{address}/24", "dev", "eth0")
    try:
        assert knock(host, one, gateway, source=own) == {gateway: "open"}
        assert knock(host, one, gateway, source=address) == {gateway: "silence"}
        for stolen in (address, host.gateway):
            assert host.run(one, "python3", "-c", CLAIM, stolen) == "claimed\n"
        assert neighbour(host, address) == neighbours
        assert knock(host, two[1][0], gateway) == {gateway: "open"}
    finally:
        host.run(one, "ip", "address", "delete", f"{address}/24", "dev", "eth0")


def test_of_the_host_a_machine_reaches_addresses_and_names_alone(host: Lab, two: list[tuple[str, str]]) -> None:
    name = two[0][0]
    with listening("0.0.0.0") as port:
        names, service = f"{host.gateway}:53", f"{host.gateway}:{port}"
        assert knock(host, name, service) == {service: "open"}  # as it is on any bridge of LXD's
        with walled(host):
            assert knock(host, name, service, names) == {service: "silence", names: "open"}
            host.run(name, "networkctl", "renew", "eth0")
            wait_for(lambda: two[0][1] in host.run(name, "hostname", "-I"), 30, "its address is renewed")
    assert host.run(name, "ls", "/dev/lxd").startswith("ls: cannot access")


def test_no_machine_reaches_anothers_doors_or_the_hosts_own_services(host: Lab, two: list[tuple[str, str]]) -> None:
    """By whichever address of the host: people come in there, machines do not."""
    (one, _), (other, _) = two
    with listening("0.0.0.0") as number:
        pass  # it was free
    door = Door("ssh", "0.0.0.0", number)
    connect(host).open_door(other, door)
    places = [f"{address}:{number}" for address in own_addresses(host)]
    try:
        assert len(places) > 1, "the bridge's, and that by which people know the host"
        wait_for(lambda: knock_here(door) == "", 30, "SSH answers whoever comes to the host")
        assert set(knock(host, one, *places).values()) == {"open"}, "as on any bridge of LXD's"
        with walled(host), ExitStack() as stack:
            # as the portal, PostgreSQL, Valkey, LXD and an agent's terminals may listen
            ports = [stack.enter_context(listening(address)) for address in own_addresses(host)]
            services = [f"{address}:{port}" for address, port in zip(own_addresses(host), ports, strict=True)]
            assert set(knock(host, one, *places, *services).values()) == {"silence"}
            wait_for(lambda: knock_here(door) == "", 30, "to people it is open as before")
        with listening("127.0.0.1") as port:  # as they all do by themselves
            assert "open" not in knock(host, one, *(f"{address}:{port}" for address in own_addresses(host))).values()
    finally:
        connect(host).close_door(other, "ssh")


def test_beyond_the_host_a_machine_reaches_what_is_not_private(
    host: Lab, two: list[tuple[str, str]], away: str
) -> None:
    web, mail = f"{away}:8080", f"{away}:25"
    name = two[0][0]
    wait_for(lambda: knock(host, name, web, mail) == {web: "open", mail: "open"}, 30, "it answers, through NAT")
    with walled(host):
        assert knock(host, name, web) == {web: "silence"}
    with walled(host, f"{away}/32"):
        assert knock(host, name, web, mail) == {web: "open", mail: "silence"}


def test_a_machine_gets_no_more_than_its_share_of_the_cable(host: Lab, two: list[tuple[str, str]], away: str) -> None:
    def seconds(name: str, megabytes: int) -> float:
        return float(host.run(name, "python3", "-c", SEND, away, "8080", str(megabytes * 1_000_000), timeout=60))

    name = two[0][0]
    wait_for(lambda: knock(host, name, f"{away}:8080") == {f"{away}:8080": "open"}, 30, "it answers, through NAT")
    with walled(host, f"{away}/32", rate=32) as table:
        assert (this_host.rate(table), this_host.walled(table)) == (32, {host.bridge})
        limited = seconds(name, 16)  # 4 MB/s, and 4 MB at once
        assert 2.5 < limited < 20
    assert any(seconds(name, 16) < limited / 2 for _ in range(3)), "once no other program had the machine's cores"


def test_the_check_finds_a_bridge_without_rules_and_a_machine_that_is_not_isolated(
    host: Lab, two: list[tuple[str, str]]
) -> None:
    def wrong() -> list[tuple[str, str, str]]:
        found = checkup.findings(connect(host).examine(), Known("ws1"))
        about = ("network", f"machine {two[1][0]}")
        return [(one.level, one.what, one.fix) for one in found if one.level != OK and one.what in about]

    [bare] = wrong()
    assert bare[:2] == (BAD, "network")
    with walled(host):
        assert this_host.walled(f"berth_{host.bridge}") == {host.bridge}
    assert this_host.walled(f"berth_{host.bridge}") == frozenset()
    host.lxc("config", "device", "set", two[1][0], "eth0", "security.port_isolation=false")
    _, [level, what, fix] = wrong()
    assert (level, what) == (WARN, f"machine {two[1][0]}")
    host.lxc(*fix.split()[1:])
    assert wrong() == [bare]


def test_what_a_new_machine_has_can_be_told_from_its_configuration(host: Lab, two: list[tuple[str, str]]) -> None:
    name, address = two[0]
    found = json.loads(host.lxc("query", f"/1.0/instances/{name}"))
    assert found["devices"]["eth0"] == {
        "type": "nic", "name": "eth0", "network": host.bridge, "ipv4.address": address, **network.FILTERED
    }  # fmt: skip
    assert CONFINED.items() <= found["config"].items()
    assert Path("/proc/sys/net/ipv6/conf", host.bridge, "disable_ipv6").read_text() == "1\n"  # it believes no router
    host.lxc("delete", "--force", name, check=False)
    assert name in host.lxc("list", "--format", "csv", "--columns", "n")  # protected
    connect(host).delete(name, "alice")
    assert name not in host.lxc("list", "--format", "csv", "--columns", "n")
