"""What would work instead: every offer is one that can be booked."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from app.errors import DomainError, QuotaExceeded, SlotTaken
from app.extensions import db
from app.models import Gpu, User
from app.services import bookings, refusals
from app.services.bookings import Ask
from tests.factories import gpus_of, make_booking, make_host, make_user

NOW = datetime(2026, 11, 4, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
SLOT = 900

pytestmark = pytest.mark.usefixtures("app")


@pytest.fixture(autouse=True)
def _still(freeze: Callable[[datetime], None]) -> None:
    freeze(NOW)


@pytest.fixture
def user() -> User:
    return make_user("liwei", hours=100)


@pytest.fixture
def gpus() -> list[Gpu]:
    return gpus_of(make_host("lab01", gpus=2))


def ask(hours: float = 4, **values: object) -> Ask:
    return Ask(starts_at=NOW + HOUR, ends_at=NOW + HOUR + timedelta(hours=hours), **values)  # type: ignore[arg-type]


def offered(user: User, wanted: Ask) -> tuple[DomainError | None, dict[str, refusals.Offer]]:
    """The refusal and its offers by kind, each of them booked for a try."""
    error, found = refusals.offers(user, wanted, SLOT)
    for offer in found:
        with db.session.begin_nested() as nested:
            booking = bookings.create(user, offer.ask, SLOT)
            assert (booking.starts_at, booking.ends_at) == (
                offer.proposal.window.starts_at,
                offer.proposal.window.ends_at,
            )
            nested.rollback()
    return error, {offer.kind: offer for offer in found}


def test_named_gpus_taken(user: User, gpus: list[Gpu]) -> None:
    make_booking(make_user("other"), gpus[:1], NOW + 3 * HOUR, NOW + 10 * HOUR)
    error, offers = offered(user, ask(gpu_ids=(gpus[0].id,)))
    assert isinstance(error, SlotTaken)
    assert set(offers) == {"elsewhere", "later", "shorter"}
    assert offers["elsewhere"].proposal.gpus == (gpus[1],)
    assert offers["later"].ask.starts_at == NOW + 10 * HOUR
    assert offers["shorter"].ask.ends_at == NOW + 3 * HOUR


def test_any_gpus_taken(user: User, gpus: list[Gpu]) -> None:
    make_booking(make_user("other"), gpus[:1], NOW + 2 * HOUR, NOW + 10 * HOUR)
    error, offers = offered(user, ask(count=2))
    assert isinstance(error, SlotTaken)
    assert set(offers) == {"later", "shorter", "fewer"}
    assert offers["fewer"].proposal.gpus == (gpus[1],)
    assert offers["shorter"].proposal.window.ends_at == NOW + 2 * HOUR


def test_nothing_is_offered_that_the_quota_forbids(gpus: list[Gpu]) -> None:
    poor = make_user("poor", hours=2)
    make_booking(make_user("other"), gpus, NOW + 2 * HOUR, NOW + 10 * HOUR)
    _error, offers = offered(poor, ask(count=2))
    assert set(offers) == {"shorter"}  # the later time costs 8 GPU-hours


@pytest.mark.parametrize(("hours", "count", "shorter", "fewer"), [(10, 2, 5, None), (12, 2, 6, 1), (0.5, 1, 0.5, None)])
def test_over_quota(gpus: list[Gpu], hours: float, count: int, shorter: float, fewer: int | None) -> None:
    poor = make_user("poor", hours=hours)
    error, offers = offered(poor, ask(12, count=count))
    assert isinstance(error, QuotaExceeded)
    assert offers["shorter"].proposal.window.seconds == shorter * 3600
    assert (len(offers["fewer"].proposal.gpus) if "fewer" in offers else None) == fewer
    assert gpus


def test_no_quota_at_all_offers_nothing(gpus: list[Gpu]) -> None:
    error, offers = offered(make_user("broke", hours=0), ask())
    assert isinstance(error, QuotaExceeded)
    assert offers == {}
    assert gpus


def test_what_is_free_again_is_the_one_offer(user: User, gpus: list[Gpu]) -> None:
    error, offers = offered(user, ask(gpu_ids=(gpus[0].id,)))
    assert (error, set(offers)) == (None, {"same"})


def test_a_request_whose_time_has_passed_begins_now(
    user: User, gpus: list[Gpu], freeze: Callable[[datetime], None]
) -> None:
    wanted = ask(gpu_ids=(gpus[0].id,))
    freeze(NOW + 30 * HOUR)
    _error, offers = offered(user, wanted)
    assert offers["same"].proposal.window.starts_at == NOW + 30 * HOUR
    assert offers["same"].proposal.window.seconds == 4 * 3600


def test_a_request_survives_being_kept(user: User, gpus: list[Gpu]) -> None:
    wanted = ask(gpu_ids=(gpus[0].id,), note="<b>", model="M", host="lab01", request_key="k")
    kept = refusals.store(user, wanted, SlotTaken("Taken.", "Later."))
    assert refusals.ask_of(refusals.get(user, kept.id)) == replace(wanted, request_key=None)
    assert (kept.reason, kept.brief, kept.hint) == ("taken", "Taken.", "Later.")
    now = refusals.store(user, Ask(ends_at=NOW + HOUR), SlotTaken("Taken."))
    assert refusals.ask_of(now).starts_at is None
