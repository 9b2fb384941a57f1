from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from threading import Thread
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from flask import Flask

from app.errors import InvalidInput, NotFound, QuotaExceeded
from app.extensions import db
from app.models import Account, AuditEvent, EntryKind, LedgerEntry, User
from app.services import audit, quota
from app.services.quota import Balance
from tests.factories import gpus_of, make_booking, make_host, make_user

SHANGHAI, BERLIN = ZoneInfo("Asia/Shanghai"), ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 11, 24, 4, tzinfo=UTC)
HOUR = 3600

Freeze = Callable[[datetime], None]


@pytest.fixture
def alice(app: Flask, freeze: Freeze) -> User:
    freeze(NOW)
    return make_user("alice", hours=0)


@pytest.fixture
def account(alice: User) -> Account:
    assert alice.account is not None
    return alice.account


def total(account: Account) -> int:
    """The ledger's sum; never anything but the balance that is kept beside it."""
    found = db.session.scalar(sa.select(sa.func.sum(LedgerEntry.amount)).where(LedgerEntry.account_id == account.id))
    assert quota.free(account.id) == (found or 0)
    return int(found or 0)


def lines(account: Account) -> list[tuple[str, int, int]]:
    return [(entry.kind, entry.amount, entry.balance_after) for entry in reversed(quota.entries(account.id))]


def test_the_balance_is_the_sum_of_the_ledger(account: Account) -> None:
    quota.post(account.id, EntryKind.GRANT, 100, key="a", actor="root")
    quota.post(account.id, EntryKind.HOLD, -60, key="b", actor="alice")
    quota.post(account.id, EntryKind.RELEASE, 60, key="c", actor="alice")
    quota.post(account.id, EntryKind.SETTLE, -50, key="d", actor="system")
    quota.post(account.id, EntryKind.ADJUST, -10, key="e", actor="root")
    assert lines(account) == [
        ("grant", 100, 100), ("hold", -60, 40), ("release", 60, 100), ("settle", -50, 50), ("adjust", -10, 40),
    ]  # fmt: skip
    assert total(account) == 40
    assert quota.balance(account.id) == Balance(granted=90, held=0, used=50, free=40)


def test_a_key_counts_once(account: Account) -> None:
    for _ in range(3):
        quota.post(account.id, EntryKind.GRANT, 100, key="same", actor="root")
    assert lines(account) == [("grant", 100, 100)]
    assert total(account) == 100


def test_the_database_refuses_a_hold_that_overspends_whoever_asks(account: Account) -> None:
    quota.post(account.id, EntryKind.GRANT, 100, key="a", actor="root")
    with pytest.raises(sa.exc.IntegrityError, match="overspends") as refused, db.session.begin_nested():
        quota.post(account.id, EntryKind.HOLD, -101, key="b", actor="a bug")
    assert refused.value.orig.diag.constraint_name == "quota_exceeded"  # type: ignore[union-attr]
    assert total(account) == 100
    quota.post(account.id, EntryKind.HOLD, -100, key="c", actor="alice")
    assert total(account) == 0


def test_what_was_used_is_charged_even_when_nothing_is_left(account: Account) -> None:
    quota.post(account.id, EntryKind.SETTLE, -50, key="a", actor="system")
    quota.post(account.id, EntryKind.ADJUST, -50, key="b", actor="root")
    assert total(account) == -100


@pytest.mark.parametrize("table", ["ledger_entries", "audit_events"])
@pytest.mark.parametrize("change", ["UPDATE {} SET actor = 'nobody'", "DELETE FROM {}"])
def test_what_was_written_stays(account: Account, table: str, change: str) -> None:
    quota.grant(account, 1, actor="root")
    with pytest.raises(sa.exc.DBAPIError, match=f"{table} is append-only"), db.session.begin_nested():
        db.session.execute(sa.text(change.format(table)))


def test_an_audit_key_counts_once(account: Account) -> None:
    for _ in range(2):
        audit.record("system", "x", "y:1", key="x:1")
        audit.record("system", "z", "y:1")
    actions = list(db.session.scalars(sa.select(AuditEvent.action).order_by(AuditEvent.id)))
    assert actions == ["x", "z", "z"]


def test_require_says_both_numbers(app: Flask) -> None:
    quota.require(HOUR, HOUR)
    with pytest.raises(QuotaExceeded, match=r"costs 1.5 GPU-hours and you have 1 left") as refused:
        quota.require(5400, HOUR)
    assert refused.value.details == {"needed": 5400, "free": HOUR}
    with pytest.raises(QuotaExceeded, match="you have 0 left"):
        quota.require(1, -HOUR)


def test_a_grant_and_what_is_taken_away_again(account: Account) -> None:
    quota.grant(account, 10, actor="root", note="for the paper")
    quota.grant(account, -2.5, actor="root")
    assert lines(account) == [("grant", 36_000, 36_000), ("adjust", -9000, 27_000)]
    assert [event.action for event in audit.recent(target="account:alice")] == ["quota.granted"] * 2


@pytest.mark.parametrize("hours", [0, 1_000_001, -1_000_001, float("nan"), float("inf")])
def test_hours_that_are_none(account: Account, hours: float) -> None:
    with pytest.raises(InvalidInput) as refused:
        quota.grant(account, hours, actor="root")
    assert refused.value.field == "hours"
    assert total(account) == 0


def test_unknown_accounts(app: Flask) -> None:
    for call in (lambda: quota.account("nobody"), lambda: quota.lock(999_999)):
        with pytest.raises(NotFound):
            call()


def test_a_month_begins_once_and_the_rest_of_the_last_one_lapses(account: Account, freeze: Freeze) -> None:
    quota.set_monthly(account, 10, SHANGHAI, actor="root")
    assert account.renews_at == datetime(2026, 12, 1, tzinfo=SHANGHAI)
    freeze(datetime(2026, 11, 30, 15, 59, 59, tzinfo=UTC))
    assert quota.renew_due(SHANGHAI) == 0
    freeze(datetime(2026, 11, 30, 16, tzinfo=UTC))
    assert [quota.renew_due(SHANGHAI) for _ in range(3)] == [1, 0, 0]
    assert lines(account) == [("grant", 36_000, 36_000), ("adjust", -36_000, 0), ("grant", 36_000, 36_000)]
    assert account.renews_at == datetime(2027, 1, 1, tzinfo=SHANGHAI)
    account.renews_at = NOW  # as if the worker had died before it could say so
    quota.renew_due(SHANGHAI)
    assert total(account) == 36_000


def test_what_is_held_stays_held_over_the_month(alice: User, account: Account, freeze: Freeze) -> None:
    quota.set_monthly(account, 10, SHANGHAI, actor="root")
    make_booking(alice, gpus_of(make_host())[:1], NOW + timedelta(days=7), NOW + timedelta(days=7, hours=4))
    freeze(datetime(2026, 12, 3, tzinfo=UTC))
    quota.renew_due(SHANGHAI)
    assert quota.balance(account.id) == Balance(granted=14 * HOUR, held=4 * HOUR, used=0, free=10 * HOUR)


def test_months_that_nobody_was_there_for_are_not_made_up(account: Account, freeze: Freeze) -> None:
    quota.set_monthly(account, 10, SHANGHAI, actor="root")
    freeze(datetime(2027, 3, 15, tzinfo=UTC))
    assert quota.renew_due(SHANGHAI) == 1
    assert total(account) == 36_000
    assert account.renews_at == datetime(2027, 4, 1, tzinfo=SHANGHAI)


@pytest.mark.parametrize(("hours", "granted"), [((10, 15), 15), ((10, 4), 4), ((10, 0), 0), ((10, 10), 10)])
def test_set_again_in_the_same_month_only_the_difference_counts(
    account: Account, hours: tuple[float, float], granted: float
) -> None:
    for number in hours:
        quota.set_monthly(account, number, SHANGHAI, actor="root")
    assert total(account) == granted * HOUR
    assert (account.renews_at is None) == (granted == 0)


def test_a_month_without_hours_is_not_renewed(account: Account, freeze: Freeze) -> None:
    quota.set_monthly(account, 10, SHANGHAI, actor="root")
    quota.set_monthly(account, 0, SHANGHAI, actor="root")
    freeze(NOW + timedelta(days=60))
    assert quota.renew_due(SHANGHAI) == 0


@pytest.mark.parametrize(
    ("now", "zone", "following"),
    [
        (datetime(2026, 11, 30, 15, 59, tzinfo=UTC), SHANGHAI, datetime(2026, 11, 30, 16, tzinfo=UTC)),
        (datetime(2026, 11, 30, 16, 0, tzinfo=UTC), SHANGHAI, datetime(2026, 12, 31, 16, tzinfo=UTC)),
        (datetime(2026, 12, 31, 23, 59, tzinfo=UTC), ZoneInfo("UTC"), datetime(2027, 1, 1, tzinfo=UTC)),
        (datetime(2026, 3, 10, tzinfo=UTC), BERLIN, datetime(2026, 3, 31, 22, tzinfo=UTC)),  # summer time by then
        (datetime(2026, 10, 10, tzinfo=UTC), BERLIN, datetime(2026, 10, 31, 23, tzinfo=UTC)),
    ],
)
def test_the_next_month_begins_at_midnight_in_the_labs_zone(now: datetime, zone: ZoneInfo, following: datetime) -> None:
    assert quota.next_month(now, zone) == following
    assert quota.month_start(now, zone) <= now < following
    assert quota.month_start(following, zone) == following


def test_eight_at_once_spend_the_last_hour_once(fresh_db: str) -> None:
    """Straight on the table, past every service: the trigger's lock alone keeps the books."""
    engine = sa.create_engine(fresh_db)
    with engine.begin() as connection:
        connection.execute(sa.text("INSERT INTO accounts (name, balance) VALUES ('a', 0)"))
    statement = sa.text("INSERT INTO ledger_entries (account_id, kind, amount, key) VALUES (1, :kind, :amount, :key)")
    with engine.begin() as connection:
        connection.execute(statement, {"kind": "grant", "amount": 3600, "key": "grant"})
    refused: list[int] = []

    def spend(number: int) -> None:
        try:
            with engine.begin() as connection:
                connection.execute(statement, {"kind": "hold", "amount": -3600, "key": f"hold:{number}"})
        except sa.exc.IntegrityError:
            refused.append(number)

    threads = [Thread(target=spend, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT balance FROM accounts")) == 0
    assert len(refused) == 7
    engine.dispose()
