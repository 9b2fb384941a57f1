"""Idle time given back and passed on in line, or not: one trace through the real services, with a clock of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from app import clock, serving
from app.config import Settings
from app.errors import DomainError, RuleRefused, SlotTaken
from app.extensions import db, transaction
from app.models import (
    Allocation,
    Booking,
    Consumer,
    Host,
    Idling,
    LedgerEntry,
    Outcome,
    Reclaim,
    UsageMinute,
    User,
    Wait,
    WaitState,
)
from app.services import bookings, policy, recording, samples
from app.services.claims import Ask
from app.services.idle import keeping
from app.services.samples import Part
from app.services.waits import joining
from app.services.waits.joining import Wanted
from tests.bench.installation import core
from tests.bench.report import Figure, Report
from tests.bench.trace import PEOPLE, Request, requests
from tests.factories import make_host, make_user
from workers import reclaimer

BEGIN = datetime(2026, 11, 2, tzinfo=UTC)  # a Monday
MINUTE = timedelta(minutes=1)
STEP = 10  # minutes from one look to the next
AGAIN = 60  # minutes after which those who found nothing look again
SLOT = 900
LEAST = 1.5
HOW = (
    "{count} requests in {days:g} days (seed {seed}; 60 % of the bookings mostly idle) for {gpus} GPUs, made by "
    "bookings.create, measured by samples.deliver each minute, and each {step} minutes looked at by the worker's own "
    "look, by the rules as they are by default (idle after 60 minutes, 120 with memory held, 15 to answer, two keeps "
    "of an hour). Who finds nothing free joins the waiting list (joining.join: booked by itself, to begin within four "
    "hours), which serving.tend serves; without it, or with five places on it, they look again each hour. Six in ten "
    "owners read messages, and keep what they still have work for. Who was not served waited until the end. Hours are "
    "of GPUs, in those days."
)


@dataclass(frozen=True)
class Way:
    """What a lab has switched on. `within`: minutes in which those who wait in line would have it begin, after which
    they look again; 0: there is no line."""

    name: str
    reclaim: bool
    within: int


NEITHER, LINE, RECLAIM, BOTH, PATIENT = WAYS = (
    Way("neither", reclaim=False, within=0),
    Way("the list", reclaim=False, within=4 * 60),
    Way("reclaim", reclaim=True, within=0),
    Way("both", reclaim=True, within=4 * 60),
    Way("both within a day", reclaim=True, within=24 * 60),
)


@dataclass(frozen=True)
class Lab:
    """How much there is, and how much is asked for."""

    hosts: int = 1
    gpus: int = 8
    days: float = 4
    a_day: float = 30
    seed: int = 20261102


@dataclass(frozen=True)
class Outcomes:
    """Hours of GPUs; `waits`, in minutes, one a request: those that were not served waited until the end."""

    reserved: float
    busy: float
    refunded: float
    cut_off: float
    waits: Sequence[int]
    served: int
    by_the_list: int
    given_back: int

    @property
    def useful(self) -> float:
        return self.busy / self.reserved if self.reserved else 0.0


@dataclass
class Replay:
    """One run: who is there, who looks for something, who waits in line, and what has been booked so far."""

    lab: Lab
    way: Way
    hosts: list[Host]
    people: list[User]
    looking: list[Request] = field(default_factory=list)
    in_line: dict[int, Request] = field(default_factory=dict)  # by the number of their place
    made: dict[int, Request] = field(default_factory=dict)
    live: set[int] = field(default_factory=set)
    granted: int = 0
    batches: int = 0

    @property
    def end(self) -> datetime:
        return BEGIN + timedelta(days=self.lab.days)

    def run(self, demand: Sequence[Request]) -> Outcomes:
        to_come = list(demand)
        for minute in range(0, int(self.lab.days * 24 * 60) + 1, STEP):
            with clock.frozen(BEGIN + minute * MINUTE):
                self.measure(minute)
                self.settle()
                if self.way.reclaim:
                    reclaimer.tend()
                    self.answer()
                self.serve()
                new = [one for one in to_come if one.at <= minute]
                to_come = to_come[len(new) :]
                self.looking += new
                self.look(minute)
        outcomes = self.outcomes()
        with clock.frozen(self.end + timedelta(days=9)):
            self.settle()
            serving.tend()  # closes what is left of the line
        return outcomes

    def measure(self, minute: int) -> None:
        """What the agents saw since the last step."""
        with transaction():
            running = self.running()
            for one in [one for booking in running if booking.starts_at <= clock.now() for one in booking.allocations]:
                one.attached_at = one.attached_at or one.starts_at  # as its agent's pass saw it
            for host in self.hosts:
                mine = [booking for booking in running if booking.host_id == host.id]
                parts = [part for booking in mine for part in self.parts(booking, minute)]
                self.batches += 1
                samples.deliver(host.id, f"{host.name}-{self.batches}", parts)

    def running(self) -> list[Booking]:
        query = sa.select(Booking).where(Booking.id.in_(self.live)).order_by(Booking.id)
        with_gpus = sa.orm.selectinload(Booking.allocations).joinedload(Allocation.gpu)
        return list(db.session.scalars(query.options(with_gpus).execution_options(populate_existing=True)))

    def parts(self, booking: Booking, minute: int) -> list[Part]:
        request = self.made[booking.id]
        found = []
        for at in range(max(0, minute - STEP), minute):
            moment = BEGIN + at * MINUTE
            if booking.starts_at <= moment < booking.ends_at:
                busy = request.busy((moment - booking.starts_at) // MINUTE)
                memory = 2000 if busy or request.held else 0
                found += [
                    Part(
                        allocation.gpu.pci_address,
                        moment,
                        booking.id,
                        f"m{request.person}",
                        sampled_ms=60_000,
                        busy_ms=600 * request.percent * busy,
                        memory_mib=memory,
                    )
                    for allocation in booking.allocations
                ]
        return found

    def settle(self) -> None:
        """Close the books of what is over."""
        with transaction():
            for host in self.hosts:
                recording.settle_ended(host, 1000)
            open_ones = sa.select(Booking.id).where(Booking.id.in_(self.live), Booking.settled_at.is_(None))
            self.live = set(db.session.scalars(open_ones))

    def answer(self) -> None:
        """Owners who read messages keep what they still have work for."""
        query = sa.select(Booking).join(Idling).where(Idling.outcome == Outcome.OPEN)
        with transaction():
            told = list(db.session.scalars(query))
        for booking in told:
            request = self.made[booking.id]
            gone = (clock.now() - booking.starts_at) // MINUTE
            if request.answers and request.left(gone):
                try:
                    with transaction():
                        keeping.keep(self.people[request.person], booking.id)
                except DomainError:  # as often as the rules allow
                    continue

    def look(self, minute: int) -> None:
        """Who has nothing looks for it, in order: at once, and then now and again."""
        joined, still = False, []
        for request in self.looking:
            if (minute - request.at) % AGAIN >= STEP:
                still.append(request)
            elif self.book(request):
                continue
            elif self.way.within and self.join(request):
                joined = True
            else:
                still.append(request)
        self.looking = still
        if joined:
            self.serve()

    def book(self, request: Request) -> bool:
        ask = Ask(ends_at=clock.now() + request.minutes * MINUTE, count=request.gpus)
        try:
            with transaction():
                booking = bookings.create(self.people[request.person], ask, SLOT)
        except SlotTaken:
            return False
        self.made[booking.id] = request
        self.live.add(booking.id)
        return True

    def join(self, request: Request) -> bool:
        """A place in line, if they have not too many."""
        until = clock.now() + (self.way.within + request.minutes) * MINUTE
        wanted = Wanted(Ask(ends_at=until, count=request.gpus), request.minutes * 60)
        try:
            with transaction():
                wait = joining.join(self.people[request.person], wanted, SLOT)
        except RuleRefused:
            return False
        self.in_line[wait.id] = request
        return True

    def serve(self) -> None:
        """The product's own turn of the line; whoever stood in it in vain looks again."""
        if not self.in_line:
            return
        serving.tend()
        with transaction():
            query = sa.select(Wait).where(Wait.id.in_(self.in_line), Wait.state != WaitState.WAITING).order_by(Wait.id)
            for wait in db.session.scalars(query.execution_options(populate_existing=True)):
                request = self.in_line.pop(wait.id)
                if wait.booking_id is None:
                    self.looking.append(request)
                else:
                    self.made[wait.booking_id] = request
                    self.live.add(wait.booking_id)
                    self.granted += 1

    def outcomes(self) -> Outcomes:
        mine, idle = Booking.id.in_(self.made), Idling.booking_id.in_(self.made)
        with transaction():
            made = list(db.session.scalars(sa.select(Booking).where(mine).order_by(Booking.id)))
            busy_ms = db.session.scalar(
                sa.select(sa.func.sum(UsageMinute.busy_ms)).join(Consumer).where(Consumer.booking_id.in_(self.made))
            )
            refunds = sa.select(sa.func.sum(LedgerEntry.amount)).where(
                LedgerEntry.booking_id.in_(self.made), LedgerEntry.key.like("release:%:%")
            )
            refunded = db.session.scalar(refunds)
            idled = list(db.session.scalars(sa.select(Idling).where(idle, Idling.outcome == Outcome.RECLAIMED)))
        spans = {one.id: (min(one.ends_at, self.end) - one.starts_at) / MINUTE for one in made}
        spans = {number: span for number, span in spans.items() if span > 0}
        waits = [(one.starts_at - BEGIN) // MINUTE - self.made[one.id].at for one in made if one.id in spans]
        later = [self.made[one.id] for one in made if one.id not in spans]
        unserved = [*self.looking, *self.in_line.values(), *later]
        cut = sum(self.made[one.booking_id].left(int(spans[one.booking_id])) for one in idled)
        return Outcomes(
            reserved=sum(self.made[number].gpus * span for number, span in spans.items()) / 60,
            busy=int(busy_ms or 0) / 3_600_000,
            refunded=int(refunded or 0) / 3600,
            cut_off=cut / 60,
            waits=[*waits, *(int(self.lab.days * 24 * 60) - one.at for one in unserved)],
            served=len(waits),
            by_the_list=self.granted,
            given_back=len(idled),
        )


def measure(settings: Settings, lab: Lab = Lab()) -> Report:
    """Each way, one after the other, with hosts and people of its own."""
    return told(lab, outcomes(settings, lab))


def outcomes(settings: Settings, lab: Lab) -> dict[Way, Outcomes]:
    """What came of the same demand in each way."""
    demand = [replace(one, gpus=min(one.gpus, lab.gpus)) for one in requests(lab.seed, lab.days, lab.a_day)]
    with core(settings):
        return {way: _run(lab, demand, way) for way in WAYS}


def told(lab: Lab, found: Mapping[Way, Outcomes]) -> Report:
    """The ways side by side: both's figures, and beside them those of the others."""
    useful = found[NEITHER].useful
    ratio = Figure("useful share of the reserved hours, both : neither", (found[BOTH].useful / useful,), least=LEAST)
    columns = {way: _figures(one) for way, one in found.items()}
    figures = [
        replace(
            one, others="; ".join(f"{way.name} {column[at].shown}" for way, column in columns.items() if way != BOTH)
        )
        for at, one in enumerate(columns[BOTH])
    ]
    size = {"gpus": lab.hosts * lab.gpus, "days": lab.days, "seed": lab.seed}
    how = HOW.format(count=len(requests(lab.seed, lab.days, lab.a_day)), step=STEP, **size)
    return Report("replay", how, (ratio, *figures))


def _figures(found: Outcomes) -> list[Figure]:
    waits = found.waits or [0]
    return [
        Figure("useful share of the reserved hours", (100 * found.useful,), "%"),
        Figure("reserved", (found.reserved,), "h"),
        Figure("busy", (found.busy,), "h"),
        Figure("requests served", (found.served,)),
        Figure("booked by the list", (found.by_the_list,)),
        Figure("mean wait", (sum(waits) / len(waits),), "min"),
        Figure("refunds", (found.refunded,), "h"),
        Figure("bookings given back", (found.given_back,)),
        Figure("work cut off by it", (found.cut_off,), "h"),
    ]


def _run(lab: Lab, demand: Sequence[Request], way: Way) -> Outcomes:
    name = f"w{WAYS.index(way)}"
    with transaction(), clock.frozen(BEGIN):
        policy.current().reclaim = Reclaim.ON if way.reclaim else Reclaim.OFF
        db.session.execute(sa.update(Host).values(enabled=False))
        hosts = [make_host(f"{name}-host{number}", gpus=lab.gpus) for number in range(lab.hosts)]
        people = [make_user(f"{name}-{number}", hours=100_000) for number in range(PEOPLE)]
    return Replay(lab, way, hosts, people).run(demand)
