"""A host and its instances held against what is safe. Pure: facts in, findings out; see services.findings for storing.

The same findings are printed by `berth doctor` and shown to admins, in English as all of the command line.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from app.drivers.facts import HostFacts
from app.services.checkup import disks, host, instances, network, pools, ports, versions
from app.services.checkup.finding import BAD, LEVELS, OK, WARN, Finding, Known, printable

MOST = 200  # findings kept of one host

__all__ = [
    "BAD",
    "LEVELS",
    "OK",
    "WARN",
    "Finding",
    "Known",
    "clock",
    "findings",
    "not_examined",
    "printable",
    "to_keep",
]

clock = host.clock


def findings(facts: HostFacts, known: Known) -> list[Finding]:
    """Everything that was looked at on a host, what is well too; the worst first within each part."""
    found = [*host.judge(facts, known), *versions.judge(facts.version)]
    found += [*instances.judge_profiles(facts), *network.judge(facts), *pools.judge(known.pools)]
    wrong = [
        *instances.judge(facts, known),
        *disks.judge(facts, known),
        *network.judge_machines(facts, known),
        *ports.judge(facts),
    ]
    bad = {one.what for one in wrong}
    good = sum(instances.label(instance) not in bad for instance in facts.instances)
    summary = f"nothing to object to in {good} of {len(facts.instances)}"
    return [*found, Finding(OK, "machines", summary), *sorted(wrong, key=lambda one: LEVELS.index(one.level))]


def not_examined(error: str, todo: str) -> Finding:
    """What is to be said of a host that could not be examined."""
    return Finding(BAD, "LXD", error, todo or "Check that LXD runs there, and that the agent may open its socket.")


def to_keep(found: Iterable[Finding]) -> list[dict[str, str]]:
    """What is worth keeping of findings, as JSON: those with something to do, at most so many, the worst first."""
    wrong = sorted((one for one in found if one.level != OK), key=lambda one: LEVELS.index(one.level))
    return list(_cut([one.as_json() for one in wrong]))


def _cut(rows: list[dict[str, str]]) -> Iterator[dict[str, str]]:
    yield from rows[:MOST]
    if len(rows) > MOST:
        yield Finding(WARN, "more", f"{len(rows) - MOST} further findings", "See all: berth doctor").as_json()
