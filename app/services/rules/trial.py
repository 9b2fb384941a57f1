"""Rules held against bookings that were made: which of them would have been refused, by which rule, and whose."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from sqlalchemy import Select, func, select

from app.errors import RuleRefused
from app.extensions import db
from app.models import Account, AccountClass, Allocation, Booking, Gpu, Host, User
from app.services.rules import check, gate, tariff
from app.services.rules.check import Asked, Standing
from app.services.rules.limits import Claim
from app.services.rules.tariff import Tariff
from app.services.rules.terms import Rules
from app.services.windows import LATE_BY, Window, ceil_to_grid, floor_to_grid

MOST = 5000  # bookings of one trial; the newest
AHEAD = timedelta(days=62)  # how long before the span a booking may have been made that still counts in it


@dataclass(frozen=True)
class Past:
    """A booking as it was asked for: `window` up to the end last asked for; `ends_at` after it was given back."""

    booking_id: int
    account_id: int
    person: str
    window: Window
    models: tuple[str, ...]
    host: str
    made_at: datetime
    ends_at: datetime
    released_at: datetime | None = None
    cancelled_at: datetime | None = None
    paid: int = 0
    user_id: int = 0
    is_rest: bool = False
    unasked: bool = False

    def claim(self, moment: datetime) -> Claim | None:
        """What of it was booked at a moment."""
        if self.cancelled_at is not None and self.cancelled_at <= moment:
            return None
        given_back = self.released_at is not None and self.released_at <= moment
        end = self.ends_at if given_back else self.window.ends_at
        return Claim(Window(self.window.starts_at, end), len(self.models), self.booking_id, self.user_id, self.unasked)


@dataclass(frozen=True)
class Verdict:
    """A booking that would have been refused, and why: every rule that it breaks."""

    past: Past
    refusals: tuple[RuleRefused, ...]


@dataclass(frozen=True)
class Trial:
    """What came out: GPU-seconds `paid` for all that were looked at, and what those would have cost that were not
    refused: `kept`. Of these `longer` would have been longer on the grid, by so many GPU-seconds in all: `added`."""

    looked_at: int = 0
    verdicts: Sequence[Verdict] = field(default=())
    paid: int = 0
    would_pay: int = 0
    kept: Sequence[Past] = field(default=())
    longer: int = 0
    added: int = 0

    @property
    def by_rule(self) -> list[tuple[str, int]]:
        """How many each rule would have refused; one that breaks two counts for both."""
        counted = Counter(str(one.details["rule"]) for verdict in self.verdicts for one in verdict.refusals)
        return counted.most_common()

    @property
    def by_person(self) -> list[tuple[str, int]]:
        """How many of whose would have been refused."""
        return Counter(verdict.past.person for verdict in self.verdicts).most_common()


def run(found: AccountClass, rules: Rules, since: datetime, until: datetime, zone: ZoneInfo, *, slot: int = 1) -> Trial:
    """Hold rules against what the accounts of a class booked between two moments. Changes nothing. `slot`: the lab's
    grid, in seconds."""
    rows = db.session.execute(_query(found).where(Booking.created_at > since - AHEAD, Booking.created_at < until))
    pasts = [_past(booking, full or name, host, models) for booking, full, name, host, models in rows]
    return replay(pasts, rules, since, zone, slot=slot)


def replay(pasts: Iterable[Past], rules: Rules, since: datetime, zone: ZoneInfo, *, slot: int = 1) -> Trial:
    """The bookings in the order in which they were made, each against what its account had then. Pure.

    What would have been refused is not held against later ones; what was made before `since`, and the rest of another
    booking, for which nobody asked, is only held against them.
    """
    earlier: dict[int, list[Past]] = defaultdict(list)
    verdicts: list[Verdict] = []
    kept: list[Past] = []
    longer = added = paid = would_pay = 0
    for past in sorted(pasts, key=lambda one: (one.made_at, one.booking_id)):
        judged = past.made_at >= since and not past.is_rest
        one = past if not judged else on_grid(past, rules.slot(slot))
        if judged:
            refusals = tuple(check.broken(_asked(one), _standing(earlier[past.account_id], one), rules, zone))
            paid += past.paid
            if refusals:
                verdicts.append(Verdict(past, refusals))
                continue
            kept.append(past)
            more = one.window.seconds - past.window.seconds
            longer, added = longer + (more > 0), added + more * len(past.models)
            if past.cancelled_at is None:
                price = tariff.price(rules, past.models, zone)
                would_pay += price.cost(Window(one.window.starts_at, one.ends_at))
        earlier[past.account_id].append(one)
    return Trial(len(kept) + len(verdicts), verdicts, paid, would_pay, kept, longer, added)


def on_grid(past: Past, slot: int) -> Past:
    """The same booking as it would have been made on a grid of `slot` seconds: never shorter, as `windows.snapped`.

    What began at once begins when it did; what was given back ends when it did."""
    made, window = past.made_at.replace(microsecond=0), past.window
    at_once = window.starts_at <= past.made_at + LATE_BY
    start = window.starts_at if at_once else max(floor_to_grid(window.starts_at, slot), made)
    wider = Window(start, ceil_to_grid(window.ends_at, slot))
    end = wider.ends_at if past.released_at is None else past.ends_at
    return replace(past, window=wider, ends_at=end)


def _asked(past: Past) -> Asked:
    models = frozenset(past.models)
    return Asked(past.window, len(past.models), past.made_at, models=models, host=past.host, member_id=past.user_id)


def _standing(earlier: Sequence[Past], past: Past) -> Standing:
    since = min(past.made_at, past.window.starts_at) - gate.LONGEST_PERIOD
    claims = (one.claim(past.made_at) for one in earlier if one.window.ends_at > since)
    return Standing([claim for claim in claims if claim is not None])


def _query(found: AccountClass) -> Select[Booking, str, str, str, Sequence[str]]:
    holds = Account.class_id == found.id
    if found.is_default:
        holds |= Account.class_id.is_(None)
    return (
        select(Booking, User.full_name, User.username, Host.name, func.array_agg(Gpu.model))
        .join(Account, Account.id == Booking.account_id)
        .join(User, User.id == Booking.user_id)
        .join(Host, Host.id == Booking.host_id)
        .join(Allocation, Allocation.booking_id == Booking.id)
        .join(Gpu, Gpu.id == Allocation.gpu_id)
        .where(holds)
        .group_by(Booking.id, User.id, Host.id)
        .order_by(Booking.created_at.desc())
        .limit(MOST)
    )


def _past(booking: Booking, person: str, host: str, models: Sequence[str]) -> Past:
    made = Window(booking.starts_at, booking.booked_until)
    rate = Tariff(len(models) * tariff.WHOLE) if not booking.tariff else tariff.of(booking)
    return Past(
        booking.id,
        booking.account_id,
        person,
        made,
        tuple(models),
        host,
        booking.created_at,
        booking.ends_at,
        booking.released_at,
        booking.cancelled_at,
        0 if booking.cancelled_at else rate.cost(Window(booking.starts_at, booking.ends_at)),
        booking.user_id,
        booking.rest_of_id is not None,
        booking.unasked,
    )
