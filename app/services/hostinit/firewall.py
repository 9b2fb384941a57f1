"""What machines may reach from their bridge: the rules as a file for nft. Machine to machine is LXD's port isolation.

LXD's own rules for the bridge accept; a packet has to please every table, so what is dropped here is dropped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

TABLE = "berth"
# Where the lab's other machines are, and what no machine has to do with: private, link-local, shared, multicast.
CLOSED = ("10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16", "224.0.0.0/3")
_RULES = """\
# Made by `berth host init`, which also changes it. What machines on {bridge} may reach.
table inet {table}
delete table inet {table}
table inet {table} {{
    set opened {{ type ipv4_addr; flags interval; auto-merge;{opened} }}
    set closed {{ type ipv4_addr; flags interval; auto-merge; elements = {{ {closed} }} }}
    set rates {{ type ipv4_addr; size 65536; flags dynamic; timeout 60s; }}
    set sent {{ type ipv4_addr; size 65536; flags dynamic; timeout 60s; }}
    set received {{ type ipv4_addr; size 65536; flags dynamic; timeout 60s; }}

    chain to_host {{
        type filter hook input priority filter - 10; policy accept;
        iifname != "{bridge}" accept
        ct state established,related accept
        meta nfproto ipv4 udp dport {{ 53, 67 }} accept
        meta nfproto ipv4 tcp dport 53 accept
        icmp type echo-request limit rate 50/second accept
        drop
    }}

    chain onward {{
        type filter hook forward priority filter - 10; policy accept;{received}
        iifname != "{bridge}" accept
        oifname "{bridge}" drop{sent}
        ct state established,related accept
        meta nfproto != ipv4 drop
        ct state new update @rates {{ ip saddr limit rate over 200/second burst 400 packets }} drop
        tcp dport 25 drop
        ip daddr @opened accept
        ip daddr @closed drop
    }}
}}
"""
_ELEMENTS = re.compile(r"set (opened|closed) \{[^{}]*elements = \{ ([^{}]+) \}")
_LIMIT = re.compile(r"over (\d+) bytes/second")


# Not LXD's own limits of a NIC: without act_police in the kernel a machine that has one does not start. What is over is
# dropped, and TCP slows down. An address is one machine's: LXD lets it use no other.
_RECEIVED = """
        iifname != "{bridge}" oifname "{bridge}" update @received {{ ip daddr limit rate over {limit} }} drop"""
_SENT = """
        update @sent {{ ip saddr limit rate over {limit} }} drop"""


def rules(
    bridge: str, opened: Iterable[str] = (), closed: Iterable[str] = (), table: str = TABLE, *, rate: int = 0
) -> str:
    """The file. `opened`: networks in what is closed that machines may reach, a file server, say; `closed`: more that
    they may not, such as the lab's own network where its addresses are public. `rate`: Mbit/s that each machine may
    send beyond the host, and get from there; 0 for no limit."""
    inside = ", ".join(opened)
    elements = f" elements = {{ {inside} }};" if inside else ""
    limit = f"{rate * 125_000} bytes/second"  # after a rest, as much as of a second at once
    received = _RECEIVED.format(bridge=bridge, limit=limit) if rate else ""
    sent = _SENT.format(limit=limit) if rate else ""
    every = ", ".join((*CLOSED, *closed))
    return _RULES.format(bridge=bridge, table=table, opened=elements, closed=every, received=received, sent=sent)


def chosen(text: str) -> tuple[tuple[str, ...], tuple[str, ...], int]:
    """What a file of `rules` was made with: opened, closed and rate; nothing where it is no such file."""
    sets = {name: elements.split(", ") for name, elements in _ELEMENTS.findall(text)}
    limit = _LIMIT.search(text)
    closed = tuple(network for network in sets.get("closed", ()) if network not in CLOSED)
    return tuple(sets.get("opened", ())), closed, int(limit[1]) // 125_000 if limit else 0
