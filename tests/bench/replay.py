"""Idle time given back, or not: the same trace through the real services, with a clock that the simulation moves on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from app import clock
from app.config import Settings
from app.errors import DomainError, SlotTaken
from app.extensions import db, transaction
from app.models import Allocation, Booking, Consumer, Host, Idling, LedgerEntry, Outcome, Reclaim, UsageMinute, User
from app.services import bookings, policy, recording, samples
from app.services.claims import Ask
from app.services.idle import keeping
from app.services.samples import Part
from tests.bench.installation import core
from tests.bench.report import Figure, Report
from tests.bench.trace import PEOPLE, Request, requests
from tests.factories import make_host, make_user
from workers import reclaimer

BEGIN = datetime(2026, 11, 2, tzinfo=UTC)  # a Monday
MINUTE = timedelta(minutes=1)
STEP = 5  # minutes from one look to the next
SLOT = 900
LEAST = 1.5
HOW = (
    "{count} requests in {days} days (seed {seed}; 60 % of the bookings mostly idle) for {gpus} GPUs in {hosts} hosts, "
    "made by bookings.create, measured by samples.deliver each minute, looked at by the worker's own look every {step} "
    "minutes with the rules as they are by default (idle after 60 minutes, 120 with memory held, 15 to answer, two "
    "keeps of an hour). Who finds nothing free waits, and is tried again in order of arrival by the simulation as soon "
    "as something may be free (the product's waiting list does not take part). Six in ten owners read messages, and "
    "keep what they still have work for. Who was not served waited until the end. Hours are of GPUs, in those days."
)


@dataclass(frozen=True)
class Lab:
    """How much there is, and how much is asked for."""

    hosts: int = 2
    gpus: int = 8
    days: float = 4
    a_day: float = 60
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
    given_back: int

    @property
    def useful(self) -> float:
        return self.busy / self.reserved if self.reserved else 0.0


@dataclass
class Replay:
    """One run: who is there, who waits, and what has been booked so far."""

    lab: Lab
    hosts: list[Host]
    people: list[User]
    waiting: list[Request] = field(default_factory=list)
    made: dict[int, tuple[Request, datetime]] = field(default_factory=dict)
    live: set[int] = field(default_factory=set)
    waits: list[int] = field(default_factory=list)
    batches: int = 0

    @property
    def end(self) -> datetime:
        return BEGIN + timedelta(days=self.lab.days)

    def run(self, demand: Sequence[Request], *, reclaim: bool) -> Outcomes:
        to_come = list(demand)
        for minute in range(0, int(self.lab.days * 24 * 60) + 1, STEP):
            with clock.frozen(BEGIN + minute * MINUTE):
                self.measure(minute)
                freed = self.settle()
                if reclaim:
                    freed |= bool(reclaimer.tend())
                    self.answer()
                new = [one for one in to_come if one.at <= minute]
                to_come = to_come[len(new) :]
                self.waiting += new
                if new or freed:
                    self.serve(minute)
        outcomes = self.outcomes()
        with clock.frozen(self.end + timedelta(days=3)):
            self.settle()
        return outcomes

    def measure(self, minute: int) -> None:
        """What the agents saw since the last step."""
        with transaction():
            running = self.running()
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
        request, _wanted_until = self.made[booking.id]
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

    def settle(self) -> bool:
        """Close the books of what is over; whether anything was."""
        with transaction():
            settled = sum(recording.settle_ended(host, 1000) for host in self.hosts)
            open_ones = sa.select(Booking.id).where(Booking.id.in_(self.live), Booking.settled_at.is_(None))
            self.live = set(db.session.scalars(open_ones))
        return settled > 0

    def answer(self) -> None:
        """Owners who read messages keep what they still have work for."""
        query = sa.select(Booking).join(Idling).where(Idling.outcome == Outcome.OPEN)
        with transaction():
            told = list(db.session.scalars(query))
        for booking in told:
            request, _wanted_until = self.made[booking.id]
            gone = (clock.now() - booking.starts_at) // MINUTE
            if request.answers and request.left(gone):
                try:
                    with transaction():
                        keeping.keep(self.people[request.person], booking.id)
                except DomainError:  # as often as the rules allow
                    continue

    def serve(self, minute: int) -> None:
        """Whoever waits, in order; smaller wishes may go before larger ones that do not fit."""
        still, too_many = [], 99
        for request in self.waiting:
            if request.gpus >= too_many or not self.book(request, minute):
                too_many = min(too_many, request.gpus)
                still.append(request)
        self.waiting = still

    def book(self, request: Request, minute: int) -> bool:
        ask = Ask(ends_at=clock.now() + request.minutes * MINUTE, count=request.gpus)
        try:
            with transaction():
                booking = bookings.create(self.people[request.person], ask, SLOT)
                for allocation in booking.allocations:  # as the agent's next pass sees it
                    allocation.attached_at = clock.now()
        except SlotTaken:
            return False
        self.made[booking.id] = request, booking.ends_at
        self.live.add(booking.id)
        self.waits.append(minute - request.at)
        return True

    def outcomes(self) -> Outcomes:
        mine = Booking.id.in_(self.made)
        with transaction():
            made = list(db.session.scalars(sa.select(Booking).where(mine).order_by(Booking.id)))
            busy_ms = db.session.scalar(
                sa.select(sa.func.sum(UsageMinute.busy_ms)).join(Consumer).where(Consumer.booking_id.in_(self.made))
            )
            refunds = sa.select(sa.func.sum(LedgerEntry.amount)).where(
                LedgerEntry.booking_id.in_(self.made), LedgerEntry.key.like("release:%:%")
            )
            refunded = db.session.scalar(refunds)
            idled = list(db.session.scalars(sa.select(Idling).where(Idling.outcome == Outcome.RECLAIMED)))
        spans = {one.id: (min(one.ends_at, self.end) - one.starts_at) / MINUTE for one in made}
        cut = sum(self.made[one.booking_id][0].left(int(spans[one.booking_id])) for one in idled)
        return Outcomes(
            reserved=sum(self.made[number][0].gpus * span for number, span in spans.items()) / 60,
            busy=int(busy_ms or 0) / 3_600_000,
            refunded=int(refunded or 0) / 3600,
            cut_off=cut / 60,
            waits=[*self.waits, *(int(self.lab.days * 24 * 60) - one.at for one in self.waiting)],
            served=len(self.waits),
            given_back=len(idled),
        )


def measure(settings: Settings, lab: Lab = Lab()) -> Report:
    """Both runs, one after the other, each with hosts and people of its own."""
    demand = requests(lab.seed, lab.days, lab.a_day)
    with core(settings):
        without, with_it = (_run(lab, demand, reclaim=reclaim) for reclaim in (False, True))
    ratio = with_it.useful / without.useful if without.useful else 0.0
    figures = [
        Figure("useful share of the reserved hours, with it : without", (ratio,), least=LEAST),
        *(figure for name, one in (("without", without), ("with it", with_it)) for figure in _figures(name, one)),
    ]
    size = {"gpus": lab.hosts * lab.gpus, "hosts": lab.hosts, "days": lab.days, "seed": lab.seed}
    how = HOW.format(count=len(demand), step=STEP, **size)
    return Report("replay", how, tuple(figures))


def _figures(name: str, found: Outcomes) -> list[Figure]:
    waits = found.waits or [0]
    return [
        Figure(f"{name}: useful share of the reserved hours", (100 * found.useful,), "%"),
        Figure(f"{name}: reserved", (found.reserved,), "h"),
        Figure(f"{name}: busy", (found.busy,), "h"),
        Figure(f"{name}: requests served", (found.served,)),
        Figure(f"{name}: mean wait", (sum(waits) / len(waits),), "min"),
        Figure(f"{name}: refunds", (found.refunded,), "h"),
        Figure(f"{name}: bookings given back", (found.given_back,)),
        Figure(f"{name}: work cut off by it", (found.cut_off,), "h"),
    ]


def _run(lab: Lab, demand: Sequence[Request], *, reclaim: bool) -> Outcomes:
    name = "with" if reclaim else "without"
    with transaction(), clock.frozen(BEGIN):
        policy.current().reclaim = Reclaim.ON if reclaim else Reclaim.OFF
        db.session.execute(sa.update(Host).values(enabled=False))
        hosts = [make_host(f"{name}{number}", gpus=lab.gpus) for number in range(lab.hosts)]
        people = [make_user(f"{name}-{number}", hours=100_000) for number in range(PEOPLE)]
    return Replay(lab, hosts, people).run(demand, reclaim=reclaim)
