"""What is to be said of machines whose disks fill: their owners are told, and admins may have to give them more."""

from __future__ import annotations

from collections.abc import Iterator

from app.drivers.facts import HostFacts
from app.services.checkup.finding import WARN, Finding, Known
from app.services.checkup.instances import label


def judge(facts: HostFacts, known: Known) -> Iterator[Finding]:
    """Each machine of Berth's whose disk is full or nearly so."""
    for instance in facts.instances:
        if instance.project != "default" or instance.name not in known.full:
            continue
        used, size = known.full[instance.name]
        detail = (
            f"its disk is full or nearly so: {used / (1 << 30):.1f} of {size} GiB. Once it is full, programs in it"
            " cannot write, no snapshot can be made, and it may not start after a stop"
        )
        fix = (
            "Its owner is told. They remove files, or they or an admin give it a larger disk: Name, size and more on"
            " its page"
        )
        yield Finding(WARN, label(instance), detail, fix)
