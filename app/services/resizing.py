"""How many GPUs a booking has, changed while it has not begun: more of its host, or some given back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import delete, select
from sqlalchemy.orm import joinedload

from app import clock
from app.errors import InvalidInput, RuleRefused, SlotTaken
from app.extensions import db, lab_zone
from app.language import gettext as _
from app.language import ngettext
from app.models import Allocation, Booking, Gpu, Phase, User
from app.services import audit, bookings, changes, claims, openings, payers, quota, unchangeable
from app.services.claims import Ask, Frame
from app.services.rules import classes, gate, tariff
from app.services.rules.check import Asked
from app.services.rules.tariff import Tariff
from app.services.rules.terms import Rules
from app.services.windows import Window
from app.services.words import when


@dataclass(frozen=True)
class Size:
    """How many GPUs a booking shall have. `gpu_ids`: just these, where whoever asks was shown them."""

    count: int
    gpu_ids: tuple[int, ...] = ()


def resize(user: User, booking_id: int, size: Size, slot: int, *, seen: Collection[int] | None = None) -> Booking:
    """Give an upcoming booking more or fewer GPUs of its host; `slot`: the lab's grid, in seconds. More are held
    against the rules and paid as a new booking's are. `seen`: the ids of those that whoever asks believes it has.

    Raises as `bookings.create` does, and Conflict where it has others by now; then it has changed nothing."""
    booking, gpus = locked(user, booking_id)
    now, own = clock.now(), gpu_ids(booking)
    if size.count < 1:
        raise InvalidInput(_("Give a whole number from 1 on."), _("To give all of it back, cancel it."), field="count")
    if size.count == len(own) and (not size.gpu_ids or set(size.gpu_ids) == own):
        return booking
    if booking.phase(now) == Phase.RUNNING or any(allocation.attached_at for allocation in booking.allocations):
        raise RuleRefused(
            _("This booking has started; it keeps its GPUs."),
            _("For more GPUs, book one more beside it. To have fewer, end it and book again."),
            rule="phase",
        )
    if booking.phase(now) != Phase.UPCOMING:
        raise unchangeable.why_not(booking, now)
    unchangeable.refuse_an_offer(booking)
    unchangeable.refuse_other_gpus(own, seen)
    rules = classes.rules_for(booking.account_id)
    frame = Frame(_window(booking), now + timedelta(days=rules.horizon_days), rules.slot(slot), rules=rules)
    if size.count > len(own):
        _keep_the_rules(booking, size.count, rules)
    _put(user, booking, _chosen(booking, gpus, size, frame), rules)
    return bookings.get(user, booking_id)


def locked(user: User, booking_id: int) -> tuple[Booking, Sequence[Gpu]]:
    """The booking and all GPUs of its host, its account, these and its own row locked, in that order: what of them is
    chosen, nobody else can take meanwhile."""
    booking = bookings.get(user, booking_id)
    quota.lock(booking.account_id)
    while True:
        attempt = db.session.begin_nested()
        there, host_id = Gpu.host_id == booking.host_id, booking.host_id
        db.session.execute(select(Gpu.id).where(there).order_by(Gpu.id).with_for_update(key_share=True))
        booking = bookings.get(user, booking_id, lock=True)
        if booking.host_id == host_id:
            attempt.commit()
            query = select(Gpu).where(there).options(joinedload(Gpu.host, innerjoin=True)).order_by(Gpu.id)
            return booking, db.session.scalars(query.execution_options(populate_existing=True)).all()
        attempt.rollback()  # it was put on another host meanwhile: to lock that one's GPUs now would be out of order
        booking = bookings.get(user, booking_id)


def gpu_ids(booking: Booking) -> frozenset[int]:
    """The GPUs that it has; its allocations must be loaded."""
    return frozenset(allocation.gpu_id for allocation in booking.allocations)


def _window(booking: Booking) -> Window:
    return Window(booking.starts_at, booking.ends_at)


def _keep_the_rules(booking: Booking, count: int, rules: Rules) -> None:
    member_id = payers.member_id(booking.user, booking.account_id)
    asked = Asked(_window(booking), count, clock.now(), host=booking.host.name, member_id=member_id)
    gate.require(booking.account_id, asked, rules, ignore_booking=booking.id)


def _chosen(booking: Booking, gpus: Sequence[Gpu], size: Size, frame: Frame) -> list[Gpu]:
    """The GPUs that it is to have, all of them locked. Raises InvalidInput, RuleRefused or SlotTaken."""
    own = _best_first(booking, [gpu for gpu in gpus if gpu.id in gpu_ids(booking)])
    if size.gpu_ids:
        return _named(own, gpus, size, frame)
    if size.count <= len(own):
        return own[: size.count]
    others = [gpu for gpu in gpus if gpu not in own and openings.is_usable(gpu)]
    others = [gpu for gpu in others if frame.rules.permits(gpu.model, gpu.host.name)]
    taken = openings.busy([*own, *others], frame.window.starts_at, frame.latest)
    free = _best_first(booking, openings.free_gpus(others, taken, frame.window))
    if (more := size.count - len(own)) > len(free):
        raise _too_few(booking, own, others, size.count, frame)
    return [*own, *free[:more]]


def _best_first(booking: Booking, gpus: Sequence[Gpu]) -> list[Gpu]:
    """Those of the model that it has most of first; in order of their numbers."""
    models = Counter(allocation.gpu.model for allocation in booking.allocations)
    return sorted(gpus, key=lambda gpu: (-models[gpu.model], gpu.minor))


def _named(own: Sequence[Gpu], gpus: Sequence[Gpu], size: Size, frame: Frame) -> list[Gpu]:
    wanted = [gpu for gpu in gpus if gpu.id in size.gpu_ids]
    if len(wanted) != size.count or len(set(size.gpu_ids)) != size.count:
        raise InvalidInput(
            _("A booking has GPUs of one host: %(host)s.", host=own[0].host.name),
            _("Choose among those."),
            field="gpus",
        )
    if added := [gpu for gpu in wanted if gpu not in own]:
        claims.named_gpus(Ask(frame.window.ends_at, gpu_ids=tuple(gpu.id for gpu in added)), frame.rules)
        claims.refuse_clashes(added, frame)
    return wanted


def _too_few(
    booking: Booking, own: Sequence[Gpu], others: Sequence[Gpu], count: int, frame: Frame
) -> RuleRefused | SlotTaken:
    """Not so many are free: whether ever, and from when on."""
    window, host = frame.window, booking.host.name
    if len(own) + len(others) < count:
        return RuleRefused(
            ngettext(
                "%(host)s has %(num)s GPU that you may book; a booking takes GPUs of one host.",
                "%(host)s has %(num)s GPUs that you may book; a booking takes GPUs of one host.",
                len(own) + len(others),
                host=host,
            ),
            _("Take fewer GPUs, or book others beside it."),
            rule="host_size",
            limit=len(own) + len(others),
        )
    taken = openings.busy([*own, *others], window.starts_at, frame.latest)
    for gpu in own:  # what is its own is in nobody's way
        taken[gpu.id] = [span for span in taken[gpu.id] if not span.overlaps(window)]
    start, latest = window.starts_at, frame.latest
    later = openings.earliest([*own, *others], taken, count, window.seconds, start, latest, frame.slot)
    brief = _(
        "%(host)s does not have %(count)s GPUs free from %(start)s to %(end)s.",
        host=host,
        count=count,
        start=when(window.starts_at),
        end=when(window.ends_at),
    )
    found = (later,) if later else ()
    return SlotTaken(brief, claims.next_hint(later), alternatives=found, next_free=later.starts_at if later else None)


def _put(user: User, booking: Booking, wanted: Sequence[Gpu], rules: Rules) -> None:
    """Give it these: what costs more is held, what costs less given back, less late fees. Raises QuotaExceeded, and
    then has changed nothing."""
    window, before, own = _window(booking), tariff.of(booking), gpu_ids(booking)
    price = _price(booking, wanted, rules)
    more = price.cost(window) - before.cost(window)
    if more > 0:
        quota.require(more, quota.lock(booking.account_id))
    fee = changes.late_fee(user, booking, window.starts_at, window.ends_at)
    booking.tariff = price.as_json()
    fee -= changes.late_fee(user, booking, window.starts_at, window.ends_at)
    ids = {gpu.id for gpu in wanted}
    gone = [allocation.id for allocation in booking.allocations if allocation.gpu_id not in ids]
    # Nothing of it ever was, since it has not begun: no pass has seen it, no ledger entry and no reading names it.
    db.session.execute(delete(Allocation).where(Allocation.id.in_(gone)))
    times = {"starts_at": window.starts_at, "ends_at": window.ends_at}
    db.session.add_all(Allocation(booking_id=booking.id, gpu_id=number, **times) for number in sorted(ids - own))
    db.session.flush()
    if ids - own and booking.unasked:
        booking.extended_at = clock.now()  # its owner asked for these
    if more > 0:
        changes.hold(user.username, booking, more)
    else:
        changes.give_back(user.username, booking, -more)
    changes.charge(user.username, booking, max(fee, 0))
    audit.record(user.username, "booking.resized", f"booking:{booking.id}", gpus=sorted(ids), were=sorted(own))


def _price(booking: Booking, wanted: Sequence[Gpu], rules: Rules) -> Tariff:
    """What it costs with these GPUs: what it keeps by the price at which that was booked, what is new by today's
    weights, all of it at the peak hours and their price that it was booked by: a booking has one of these.

    What each GPU weighed then is not written down: the price is shared by what they weigh now, or else by their number.
    """
    before, own = tariff.of(booking), [allocation.gpu for allocation in booking.allocations]
    kept = [gpu for gpu in own if gpu.id in {one.id for one in wanted}]
    added = [gpu for gpu in wanted if gpu.id not in gpu_ids(booking)]
    part, whole = (_weight(gpus, rules) for gpus in (kept, own))
    if not whole:
        part, whole = len(kept), len(own)
    rate = (before.rate * part + whole // 2) // whole
    return Tariff(rate + _weight(added, rules), before.peak)


def _weight(gpus: Sequence[Gpu], rules: Rules) -> int:
    return tariff.price(rules, (gpu.model for gpu in gpus), lab_zone()).rate
