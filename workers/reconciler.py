"""A pass over one host: load what should be, observe what is, plan, act, and record what a later look saw.

No transaction is open while LXD is asked for anything. Whatever is killed half-way, the next pass starts from what it
then sees, so it ends in the same state.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime

from sqlalchemy.exc import DBAPIError

from app import clock
from app.drivers.base import DriverError, HostSeen, LxdDriver
from app.extensions import database_trouble, db, transaction
from app.models import Host
from app.services import drift, enforcement, inventory, noshows, recording
from app.services.plan import Desired, Plan, from_tags, plan
from app.services.recording import Late
from workers import aftermath
from workers.evictor import Evictor
from workers.handover import Hands
from workers.outcome import Errors, Outcome
from workers.verdicts import State
from workers.watch import Watch

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PassResult:
    """What a pass did. `ok`: the host and the database could both be reached, and who holds the GPUs looked for;
    `looked`: the first two at least. `next_boundary`: when to look again."""

    ok: bool
    plan: Plan = field(default_factory=Plan)
    outcome: Outcome = field(default_factory=Outcome)
    next_boundary: datetime | None = None
    milliseconds: int = 0
    trouble: str = ""
    looked: bool = False

    @property
    def errors(self) -> Errors:
        """By allocation id, why its GPU was not plugged in."""
        return self.outcome.errors


def run_pass(
    host_name: str, driver: LxdDriver, hands: Hands | None = None, first: Callable[[], None] = lambda: None
) -> PassResult:
    """One pass over the host. Needs an app context. Expected trouble is in the result, not raised.

    `hands`: what an agent keeps from pass to pass; without, nothing is asked of the host's kernel. `first`: what the
    database has to be asked before the pass writes there; while it does not answer, the pass goes without it."""
    started = time.monotonic()
    hands = hands or Hands(Evictor(driver, None))
    evictor = hands.evictor
    try:
        first()
        with transaction():
            host = inventory.host(host_name)
            inventory.saw_agent(host.id)
            want = enforcement.desired(host)
    except DBAPIError as error:
        db.session.remove()
        return _pass_alone(host_name, hands, started, error)
    evictor.begun = frozenset(evictor.busy)
    try:
        seen = driver.observe()
    except DriverError as error:
        return _pass_blind(host_name, hands, want, started, str(error))
    watch = evictor.watch(want, seen)
    todo = plan(watch.want, seen)
    outcome = _act(hands, watch, todo)
    try:
        if not todo.quiet or outcome.verdicts:
            evictor.seen = seen = _look_again(driver, seen, todo, outcome)
    except DriverError as error:  # what was done but not seen, the next pass sees and writes down
        _write_down(host_name, hands, watch, outcome)
        _not_seen(host_name, want, str(error))
        return PassResult(False, todo, outcome, _next(want, outcome), _since(started), str(error))
    unwritten = _record(host_name, hands, watch, seen, outcome, started)
    trouble = unwritten or outcome.trouble
    return PassResult(
        not trouble, todo, outcome, _next(want, outcome), _since(started), trouble, looked=not unwritten
    )  # fmt: skip


def _act(hands: Hands, watch: Watch, todo: Plan) -> Outcome:
    """Fence, then per GPU what the plan says; then a look over the whole host for those who hold one unbooked."""
    evictor, want = hands.evictor, watch.want
    try:
        evictor.fence(watch)
    except DriverError as error:
        log.warning("the host's kernel: %s", error)
        return Outcome(trouble=inventory.UNSEEN + error.sentences())
    outcome = hands.act(watch, todo, {*watch.endings, *(want.quarantined & want.guarded)})
    for look in (_ask_ahead, _sweep):
        try:
            look(hands, watch, outcome)
        except DriverError as error:  # what was done is written down all the same
            log.warning("the host's kernel: %s", error)
            outcome.trouble = inventory.UNSEEN + error.sentences()
            evictor.swept = 0.0  # the next pass looks again, however soon: till one could, it is in trouble
    hands.unrecorded.bring_up(outcome)
    return outcome


def _ask_ahead(hands: Hands, watch: Watch, outcome: Outcome) -> None:
    outcome.asked |= hands.evictor.ask_ahead(watch)


def _sweep(hands: Hands, watch: Watch, outcome: Outcome) -> None:
    if intruded := hands.evictor.sweep(watch) - outcome.verdicts.keys():
        more = hands.act(watch, Plan(), intruded)
        outcome.verdicts |= more.verdicts
        outcome.belated += more.belated
        outcome.intruded |= intruded


def _record(host_name: str, hands: Hands, watch: Watch, seen: HostSeen, outcome: Outcome, started: float) -> str:
    """Write what was seen and done; why it could not be written, or ""."""
    want, proven, scan = watch.want, hands.evictor.kernel is not None, hands.evictor.scan
    free = {pci: verdict.at or clock.now() for pci, verdict in outcome.verdicts.items() if verdict.state == State.FREE}

    late: list[Late] = []

    def write(host: Host) -> None:
        late[:] = recording.record(host, want, seen, outcome.errors, free if proven else None)
        recording.record_asked(outcome.asked_of(watch))
        recording.looked(host, _since(started), seen, want.at, outcome.trouble)
        report = drift.report(want, seen, scan, gpus=watch.gpus)
        if (news := drift.news(host.observed, report)) is not None:
            host.observed = news

    trouble = _note(host_name, write)
    outcome.late += [] if trouble else late
    trouble = _write_down(host_name, hands, watch, outcome) or trouble
    if not trouble:
        _note(host_name, noshows.end_next)
    return trouble or _note(host_name, recording.settle_ended)


def _write_down(host_name: str, hands: Hands, watch: Watch, outcome: Outcome) -> str:
    """Whom this pass ended, what it stopped and gave up; why it could not be written, or "": then the next one does."""
    if not outcome.verdicts and not outcome.earlier and not watch.want.quarantined:
        return ""
    trouble = _note(host_name, lambda host: aftermath.record(host, watch, outcome))
    if trouble:
        hands.unrecorded.keep(watch, outcome)
    return trouble


def _note(host_name: str, write: Callable[[Host], object]) -> str:
    """Write down something about the host in a transaction; why it could not be, or "". The next pass makes it good."""
    try:
        with transaction():
            write(inventory.host(host_name))
    except DBAPIError as error:
        log.warning("host %s: what this pass did is not recorded yet: %s", host_name, error)
        db.session.remove()
        return str(error)
    return ""


def _not_seen(host_name: str, want: Desired, trouble: str) -> None:
    """Tell those who wait that nobody could look; the books of what is over are closed all the same, however long that
    lasts: they need no look at the host."""
    if not _note(host_name, lambda host: recording.could_not_look(host, want, trouble)):
        _note(host_name, recording.settle_ended)


def _next(want: Desired, outcome: Outcome) -> datetime | None:
    """When to look again: at the next start or end, or when what holds a GPU has had its time."""
    moments = [want.next_boundary, *(verdict.until for verdict in outcome.verdicts.values())]
    return min((moment for moment in moments if moment is not None), default=None)


def _look_again(driver: LxdDriver, before: HostSeen, todo: Plan, outcome: Outcome) -> HostSeen:
    """The host as it is now: the instances that were touched are looked at anew."""
    touched = {item.instance for item in todo.detaches}
    touched |= {item.want.instance for item in todo.attaches if item.want.instance}
    touched |= {verdict.stopped for verdict in outcome.verdicts.values() if verdict.stopped}
    if not touched:
        return before
    now = driver.observe(frozenset(touched)).instances
    kept = {name: seen for name, seen in before.instances.items() if name not in touched}
    return HostSeen({**kept, **now})


def _pass_blind(host_name: str, hands: Hands, want: Desired, started: float, trouble: str) -> PassResult:
    """A pass without LXD: nothing can be plugged or unplugged, but the kernel still says no and ends what holds."""
    watch = hands.evictor.watch(want, None)
    outcome = _act(hands, watch, Plan())
    _write_down(host_name, hands, watch, outcome.blind())
    _not_seen(host_name, want, trouble)
    return PassResult(False, outcome=outcome, next_boundary=_next(want, outcome), milliseconds=_since(started),
                      trouble=trouble)  # fmt: skip


def _pass_alone(host_name: str, hands: Hands, started: float, error: DBAPIError) -> PassResult:
    """A pass without the database: bookings still end on time, by what the instances carry, and none begins."""
    why = str(error.orig).partition("\n")[0]  # the server's own words: the rest is SQL
    log.warning("host %s: the database is away, ending what has ended and starting nothing: %s", host_name, why)
    evictor = hands.evictor
    evictor.begun = frozenset(evictor.busy)
    try:
        seen = evictor.driver.observe()
    except DriverError as trouble:
        return PassResult(False, milliseconds=_since(started), trouble=str(trouble))
    want = from_tags(seen, clock.now(), evictor.gpus(), evictor.last)
    watch = evictor.watch(want, seen)
    todo = replace(plan(want, seen), attaches=())
    outcome = _act(hands, watch, todo)
    hands.unrecorded.keep(watch, outcome)
    return PassResult(False, todo, outcome, _next(want, outcome), _since(started), database_trouble(error))


def _since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)
