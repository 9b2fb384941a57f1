"""A lab where bookings that do nothing are given back, for the tests of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count

import sqlalchemy as sa

from app.extensions import db
from app.models import Allocation, AuditEvent, Booking, Host, Idling, Notice, Reclaim, User
from app.services import news, policy, samples
from app.services.idle import steps
from app.services.samples import Part
from tests.factories import gpus_of, make_booking, make_host, make_user

NOW = datetime(2026, 11, 24, 6, tzinfo=UTC)  # 14:00 in Shanghai, the lab's zone
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


@dataclass
class Lab:
    """Two GPUs on lab03 that Li Wei has from 14:00 on for eight hours, attached; after an hour of nothing she is told,
    and 15 minutes later they are given back."""

    freeze: Callable[[datetime], None]
    host: Host = field(init=False)
    owner: User = field(init=False)
    booking: Booking = field(init=False)
    _batches: count[int] = field(default_factory=count)

    def __post_init__(self) -> None:
        self.freeze(NOW)
        policy.current().reclaim = Reclaim.ON
        self.host, self.owner = make_host("lab03", gpus=2), make_user("liwei", full_name="Li Wei")
        self.booking = make_booking(self.owner, gpus_of(self.host), NOW, NOW + 8 * HOUR)
        self.allocations(attached_at=NOW)

    def allocations(self, **values: object) -> None:
        db.session.execute(sa.update(Allocation).where(Allocation.booking_id == self.booking.id).values(**values))
        db.session.flush()

    def measure(
        self,
        start: int,
        end: int,
        *,
        gpus: Iterable[int] = (0, 1),
        busy: int = 0,
        memory: int = 0,
        own: bool = True,
    ) -> None:
        """What an agent delivers of these minutes after the start; `busy`: percent of each, `memory`: MiB."""
        addresses = [gpu.pci_address for gpu in gpus_of(self.host) if gpu.minor in set(gpus)]
        parts = [
            Part(
                address,
                NOW + minute * MINUTE,
                self.booking.id if own else 0,
                "liwei" if own else "other",
                sampled_ms=60_000,
                busy_ms=600 * busy,
                memory_mib=memory,
            )
            for minute in range(start, end)
            for address in addresses
        ]
        samples.deliver(self.host.id, f"batch-{next(self._batches)}", parts)

    def look(self, minute: float) -> list[Booking]:
        """A worker's look, so many minutes after the start; what it gave back."""
        self.freeze(NOW + minute * MINUTE)
        ended = [steps.act(booking_id) for booking_id in steps.look()]
        return [booking for booking in ended if booking is not None]

    def tell(self, *, mail: str) -> None:
        """A postman's turn, whose mail is `up` or `down`."""
        news.collect(mail=True)
        sent = {"sent_at": sa.func.now()} if mail == "up" else {"given_up_at": sa.func.now()}
        db.session.execute(sa.update(Notice).values(sent))

    def events(self) -> list[str]:
        """What was done about it, in order, without what a test prepared."""
        query = sa.select(AuditEvent.action).where(AuditEvent.target == f"booking:{self.booking.id}")
        return list(db.session.scalars(query.order_by(AuditEvent.id)))

    def outcomes(self) -> list[str]:
        query = sa.select(Idling).order_by(Idling.id).execution_options(populate_existing=True)
        return [str(one.outcome) for one in db.session.scalars(query)]
