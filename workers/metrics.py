"""What an agent counts while it runs, for its /metrics: it is there when the portal and the database are not."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest

from app.services.recording import Late
from workers.reconciler import PassResult

disable_created_metrics()  # type: ignore[no-untyped-call]
REGISTRY = CollectorRegistry()
PASSES = Histogram(
    "berth_agent_pass_seconds",
    "How long passes took",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60),
    registry=REGISTRY,
)
FAILED = Counter(
    "berth_agent_passes_failed",
    "Passes that could not reach the host or the database, or not look for who holds a GPU",
    registry=REGISTRY,
)
LATENESS = Histogram(
    "berth_enforcement_lateness_seconds",
    "From a booking's start until its GPU was seen attached; from its end, and the grace of what ran on, to free",
    ["what"],
    buckets=(0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 900),
    registry=REGISTRY,
)
for _what in ("attach", "detach"):
    LATENESS.labels(_what)  # there from the beginning, so that the first one can be seen to come


def counted(result: PassResult) -> PassResult:
    """The same, counted."""
    PASSES.observe(result.milliseconds / 1000)
    if not result.ok:
        FAILED.inc()
    _late(result.outcome.late)
    return result


def _late(found: Iterable[Late]) -> None:
    for one in found:
        LATENESS.labels(one.what).observe(one.seconds)


def text() -> str:
    """All of it in Prometheus' text format."""
    return generate_latest(REGISTRY).decode()
