from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from flask import Flask

from app.errors import InvalidInput, NotAllowed, NotFound, QuotaExceeded, RuleRefused, SlotTaken
from app.extensions import db
from app.models import Allocation, Booking, GpuState, Host, LedgerEntry, Phase, User
from app.services import bookings, openings, policy, quota
from app.services.claims import Ask
from app.services.rules import tariff
from app.services.windows import Window
from tests.factories import gpus_of, make_booking, make_gpu, make_host, make_instance, make_pending, make_user

NOW = datetime(2026, 11, 3, 14, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
SLOT = 900


@pytest.fixture(autouse=True)
def _at(app: Flask, freeze: Callable[[datetime], None]) -> None:
    freeze(NOW)


@pytest.fixture
def host(app: Flask) -> Host:
    return make_host("lab03")


@pytest.fixture
def alice(app: Flask) -> User:
    return make_user("alice", full_name="Alice Wu", hours=100)


@pytest.fixture
def bob(app: Flask) -> User:
    return make_user("bob", full_name="Bob Li", hours=100)


def ask(host: Host, *numbers: int, start: datetime | None = NOW + HOUR, hours: float = 2, **values: object) -> Ask:
    ids = tuple(gpu.id for gpu in gpus_of(host) if gpu.minor in numbers)
    end = (start or NOW) + timedelta(hours=hours)
    return Ask(ends_at=end, starts_at=start, gpu_ids=ids, **values)  # type: ignore[arg-type]


def nothing_changed() -> bool:
    held = db.session.scalar(sa.select(sa.func.count()).select_from(LedgerEntry).where(LedgerEntry.kind == "hold"))
    return held == 0 and db.session.scalar(sa.select(sa.func.count()).select_from(Booking)) == 0


def test_a_booking_holds_what_it_costs(host: Host, alice: User) -> None:
    booking = bookings.create(alice, ask(host, 0, 1), SLOT)
    assert booking.phase(NOW) == Phase.UPCOMING
    assert tariff.cost(booking) == 2 * 2 * 3600
    assert quota.balance(alice.account_id or 0) == quota.Balance(360_000, 14_400, 0, 345_600)
    assert {allocation.gpu_id for allocation in booking.allocations} == set(ask(host, 0, 1).gpu_ids)


def test_a_proposal_says_what_it_would_cost_and_takes_nothing(host: Host, alice: User) -> None:
    proposal = bookings.propose(alice, ask(host, 0), SLOT)
    assert (proposal.cost, proposal.free_after) == (7200, 360_000 - 7200)
    assert not proposal.has_machine
    assert nothing_changed()
    make_instance(alice, host)
    assert bookings.propose(alice, ask(host, 0), SLOT).has_machine


@pytest.mark.parametrize("propose", [True, False], ids=["checked", "booked"])
def test_taken_says_by_whom_and_what_would_work(host: Host, alice: User, bob: User, propose: bool) -> None:
    bookings.create(bob, ask(host, 0, 1), SLOT)
    call = bookings.propose if propose else bookings.create
    with pytest.raises(SlotTaken) as refused:
        call(alice, ask(host, 0, start=NOW, hours=2), SLOT)
    error = refused.value
    assert "GPU 0 on lab03 is taken" in error.brief
    assert "Bob Li" in error.brief
    assert error.next_free == NOW + 3 * HOUR
    assert [clash.owner for clash in error.clashes] == ["Bob Li"]
    assert {alternative.kind for alternative in error.alternatives} == {"elsewhere", "later", "shorter"}
    for alternative in error.alternatives:
        window = Window(alternative.starts_at, alternative.ends_at)
        assert openings.overlapping(alternative.gpu_ids, window) == []
        retry = Ask(ends_at=window.ends_at, starts_at=window.starts_at, gpu_ids=alternative.gpu_ids)
        assert bookings.propose(alice, retry, SLOT).window == window


def test_back_to_back_is_legal(host: Host, alice: User, bob: User) -> None:
    bookings.create(bob, ask(host, 0), SLOT)
    bookings.create(alice, ask(host, 0, start=NOW + 3 * HOUR), SLOT)
    bookings.create(alice, ask(host, 0, start=NOW, hours=1), SLOT)


def test_the_database_itself_refuses_overlap(host: Host, alice: User, bob: User) -> None:
    gpus = gpus_of(host)[:1]
    make_booking(alice, gpus, NOW, NOW + HOUR)
    with pytest.raises(sa.exc.IntegrityError, match="ex_allocations_overlap"), db.session.begin_nested():
        make_booking(bob, gpus, NOW + HOUR / 2, NOW + 2 * HOUR)
    db.session.add(Allocation(booking_id=1, gpu_id=gpus[0].id, starts_at=NOW, ends_at=NOW))
    with pytest.raises(sa.exc.IntegrityError, match="window"):
        db.session.flush()
    db.session.rollback()


def test_any_free_gpus_come_from_one_host_and_the_own_one_first(alice: User, bob: User) -> None:
    small, large = make_host("a-small", gpus=2), make_host("b-large", gpus=4)
    wanted = Ask(starts_at=NOW, ends_at=NOW + HOUR, count=2)
    assert bookings.propose(alice, wanted, SLOT).gpus[0].host_id == small.id  # fewest left over
    make_instance(alice, large)
    booking = bookings.create(alice, wanted, SLOT)
    assert booking.host_id == large.id
    bookings.create(bob, Ask(starts_at=NOW, ends_at=NOW + HOUR, count=2), SLOT)
    with pytest.raises(RuleRefused, match="the most on one host is 4"):
        bookings.create(bob, Ask(starts_at=NOW, ends_at=NOW + HOUR, count=5), SLOT)


def test_any_free_says_when_the_next_is_free(host: Host, alice: User, bob: User) -> None:
    bookings.create(bob, ask(host, 0, 1, 2, start=NOW, hours=3), SLOT)
    with pytest.raises(SlotTaken) as refused:
        bookings.create(alice, Ask(starts_at=NOW, ends_at=NOW + HOUR, count=2), SLOT)
    assert refused.value.next_free == NOW + 3 * HOUR
    (later,) = refused.value.alternatives
    assert (later.starts_at, later.ends_at, len(later.gpu_ids)) == (NOW + 3 * HOUR, NOW + 4 * HOUR, 2)


def test_a_model_and_a_host_narrow_the_choice(alice: User) -> None:
    make_host("a", model="A6000")
    make_host("b", model="H200")
    wanted = Ask(starts_at=NOW, ends_at=NOW + HOUR, model="H200")
    assert bookings.propose(alice, wanted, SLOT).gpus[0].model == "H200"
    with pytest.raises(InvalidInput) as refused:
        bookings.propose(alice, Ask(starts_at=NOW, ends_at=NOW + HOUR, model="H200", host="a"), SLOT)
    assert refused.value.field == "model"


def test_a_form_sent_twice_books_once(host: Host, alice: User, bob: User) -> None:
    first = bookings.create(alice, ask(host, 0, request_key="form-1"), SLOT)
    again = bookings.create(alice, ask(host, 0, request_key="form-1"), SLOT)
    assert first.id == again.id
    assert quota.balance(alice.account_id or 0).held == 7200
    other = bookings.create(bob, ask(host, 1, request_key="form-1"), SLOT)
    assert other.id != first.id


def test_quota_is_the_limit_and_the_numbers_are_said(host: Host) -> None:
    poor = make_user("poor", hours=3)
    with pytest.raises(QuotaExceeded, match=r"costs 4 GPU-hours and you have 3 left") as refused:
        bookings.create(poor, ask(host, 0, 1), SLOT)
    assert refused.value.details == {"needed": 14_400, "free": 10_800}
    assert nothing_changed()
    bookings.create(poor, ask(host, 0, hours=3), SLOT)
    with pytest.raises(QuotaExceeded):
        bookings.propose(poor, ask(host, 1, hours=0.25), SLOT)


@pytest.mark.parametrize(
    ("values", "kind", "words"),
    [
        ({"hours": 73}, RuleRefused, "72 hours at most"),
        ({"start": NOW + timedelta(days=28)}, RuleRefused, "within 28 days"),
        ({"start": NOW - HOUR}, InvalidInput, "past"),
        ({"hours": 0}, InvalidInput, "after the start"),
        ({"hours": -1}, InvalidInput, "after the start"),
        ({"note": "x" * 201}, InvalidInput, "too long"),
        ({"note": "two\nlines"}, InvalidInput, "one line"),
    ],
    ids=["too long", "beyond the horizon", "past", "empty", "reversed", "long note", "newline"],
)
def test_against_a_rule_nothing_is_taken(
    host: Host, alice: User, values: dict[str, object], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        bookings.create(alice, ask(host, 0, **values), SLOT)  # type: ignore[arg-type]
    assert nothing_changed()


def test_more_gpus_than_one_may_take(alice: User, host: Host) -> None:
    policy.current().max_gpus = 2
    with pytest.raises(RuleRefused, match="2 GPUs at most; you asked for 3"):
        bookings.create(alice, ask(host, 0, 1, 2), SLOT)


def test_gpus_that_cannot_be_had(host: Host, alice: User) -> None:
    other = make_host("lab04")
    mixed = Ask(starts_at=NOW, ends_at=NOW + HOUR, gpu_ids=(gpus_of(host)[0].id, gpus_of(other)[0].id))
    with pytest.raises(InvalidInput, match="different hosts"):
        bookings.create(alice, mixed, SLOT)
    with pytest.raises(InvalidInput, match="There is no GPU 999999"):
        bookings.create(alice, Ask(starts_at=NOW, ends_at=NOW + HOUR, gpu_ids=(999_999,)), SLOT)
    gpus_of(host)[0].state = GpuState.MAINTENANCE
    with pytest.raises(RuleRefused, match="out of service"):
        bookings.create(alice, ask(host, 0), SLOT)
    other.enabled = False
    with pytest.raises(RuleRefused, match="out of service"):
        bookings.create(alice, ask(other, 1), SLOT)
    assert nothing_changed()


def test_who_is_not_approved_cannot_book(host: Host) -> None:
    with pytest.raises(NotAllowed):
        bookings.create(make_pending("eve"), ask(host, 0), SLOT)


def test_anothers_booking_is_not_there(host: Host, alice: User, bob: User) -> None:
    booking = bookings.create(alice, ask(host, 0), SLOT)
    with pytest.raises(NotFound):
        bookings.get(bob, booking.id)
    with pytest.raises(NotFound):
        bookings.get(bob, booking.id + 10_000)
    assert bookings.get(alice, booking.id).id == booking.id
    assert bookings.mine(bob) == []


def test_between_finds_by_overlap(host: Host, alice: User) -> None:
    booking = make_booking(alice, gpus_of(host)[:1], NOW, NOW + 10 * HOUR)
    assert [found.id for found in bookings.between(NOW + 3 * HOUR, NOW + 4 * HOUR)] == [booking.id]
    assert bookings.between(NOW + 10 * HOUR, NOW + 11 * HOUR) == []
    assert bookings.between(NOW - HOUR, NOW) == []


def test_two_models_at_once_are_only_offered_when_both_are_free(alice: User, bob: User) -> None:
    host = make_host("mixed", gpus=1, model="A")
    make_gpu(host, minor=1, model="B")
    bookings.create(bob, ask(host, 1, start=NOW + 2 * HOUR, hours=2), SLOT)
    bookings.create(bob, ask(host, 0, start=NOW, hours=1), SLOT)
    with pytest.raises(SlotTaken) as refused:
        bookings.create(alice, ask(host, 0, 1, start=NOW, hours=2), SLOT)
    assert refused.value.next_free == NOW + 4 * HOUR
    assert [alternative.kind for alternative in refused.value.alternatives] == ["later"]


def test_a_shorter_offer_can_be_taken_as_it_is(host: Host, alice: User, bob: User) -> None:
    make_booking(bob, gpus_of(host)[:1], NOW + timedelta(minutes=50, seconds=7), NOW + 5 * HOUR)
    with pytest.raises(SlotTaken) as refused:
        bookings.create(alice, ask(host, 0, start=NOW, hours=2), SLOT)
    shorter = next(offer for offer in refused.value.alternatives if offer.kind == "shorter")
    assert shorter.ends_at == NOW + timedelta(minutes=45)
    wanted = Ask(starts_at=shorter.starts_at, ends_at=shorter.ends_at, gpu_ids=shorter.gpu_ids)
    assert bookings.create(alice, wanted, SLOT).ends_at == shorter.ends_at


def test_sent_again_after_its_start_it_is_still_booked_once(
    host: Host, alice: User, freeze: Callable[[datetime], None]
) -> None:
    form = ask(host, 0, start=NOW, request_key="form-1")
    booking = bookings.create(alice, form, SLOT)
    freeze(NOW + timedelta(minutes=5))
    assert bookings.create(alice, form, SLOT).id == booking.id


def test_no_gpu_at_all(host: Host, alice: User) -> None:
    with pytest.raises(InvalidInput):
        bookings.create(alice, Ask(starts_at=NOW, ends_at=NOW + HOUR, count=0), SLOT)
