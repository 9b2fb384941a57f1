from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from threading import Thread
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from flask import Flask

from app.errors import InvalidInput
from app.extensions import db
from app.models import Account, EntryKind, LedgerEntry, User
from app.services import audit, quota
from tests.factories import make_user

SHANGHAI = ZoneInfo("Asia/Shanghai")
NOW = datetime(2026, 11, 30, 15, 30, tzinfo=UTC)  # 23:30 on the last of the month in Shanghai


@pytest.fixture
def alice(app: Flask, freeze: Callable[[datetime], None]) -> User:
    freeze(NOW)
    return make_user("alice", hours=0)


def account(user: User) -> Account:
    found = db.session.get(Account, user.account_id, populate_existing=True)
    assert found is not None
    return found


def total(user: User) -> int:
    query = sa.select(sa.func.coalesce(sa.func.sum(LedgerEntry.amount), 0))
    return int(db.session.scalar(query.where(LedgerEntry.account_id == user.account_id)) or 0)


def test_the_balance_is_the_sum_of_the_ledger_line_by_line(alice: User) -> None:
    for number, amount in enumerate([3600, -600, 50, 0, -3000]):
        kind = EntryKind.GRANT if amount >= 0 else EntryKind.HOLD
        quota.post(alice.account_id or 0, kind, amount, key=f"k{number}", actor="test")
    entries = quota.entries(alice.account_id or 0)
    assert [entry.balance_after for entry in reversed(entries)] == [3600, 3000, 3050, 3050, 50]
    assert account(alice).balance == total(alice) == 50


def test_the_same_key_posts_once(alice: User) -> None:
    for _again in range(3):
        quota.post(alice.account_id or 0, EntryKind.GRANT, 100, key="once", actor="test")
    assert account(alice).balance == total(alice) == 100


def test_a_hold_that_overspends_is_refused_by_the_database(alice: User) -> None:
    quota.post(alice.account_id or 0, EntryKind.GRANT, 100, key="grant", actor="test")
    with pytest.raises(sa.exc.IntegrityError) as refused, db.session.begin_nested():
        quota.post(alice.account_id or 0, EntryKind.HOLD, -101, key="hold", actor="test")
    assert refused.value.orig.diag.constraint_name == "quota_exceeded"  # type: ignore[union-attr]
    assert account(alice).balance == 100


@pytest.mark.parametrize("statement", ["UPDATE {} SET id = id", "DELETE FROM {}"])
@pytest.mark.parametrize("table", ["ledger_entries", "audit_events"])
def test_what_was_written_cannot_be_changed(alice: User, table: str, statement: str) -> None:
    quota.post(alice.account_id or 0, EntryKind.GRANT, 100, key="grant", actor="test")
    audit.record("test", "tested", "nothing")
    with pytest.raises(sa.exc.DBAPIError, match="append-only"), db.session.begin_nested():
        db.session.execute(sa.text(statement.format(table)))


def test_an_audit_event_with_a_key_is_written_once(alice: User) -> None:
    for _again in range(2):
        audit.record("test", "tested", "nothing", key="once")
        audit.record("test", "tested", "nothing else")
    assert len(audit.recent(target="nothing")) == 1
    assert len(audit.recent(target="nothing else")) == 2


def test_hours_are_granted_and_taken_back(alice: User) -> None:
    quota.grant(account(alice), 10, actor="root")
    quota.grant(account(alice), -2.5, actor="root", note="too many")
    assert quota.balance(alice.account_id or 0) == quota.Balance(27_000, 0, 0, 27_000)


@pytest.mark.parametrize("hours", [0, 2_000_000, float("nan"), float("inf")])
def test_hours_that_are_none_are_refused(alice: User, hours: float) -> None:
    with pytest.raises(InvalidInput):
        quota.grant(account(alice), hours, actor="root")


def test_a_new_month_begins_once_and_what_was_left_lapses(alice: User, freeze: Callable[[datetime], None]) -> None:
    quota.set_monthly(account(alice), 10, SHANGHAI, actor="root")
    quota.post(alice.account_id or 0, EntryKind.HOLD, -3600, key="hold", actor="alice")
    assert quota.renew_due(SHANGHAI) == 0
    freeze(NOW + timedelta(minutes=30))  # midnight in Shanghai
    assert quota.renew_due(SHANGHAI) == 1
    assert quota.renew_due(SHANGHAI) == 0
    assert account(alice).balance == total(alice) == 36_000
    assert account(alice).renews_at == datetime(2027, 1, 1, tzinfo=SHANGHAI)


def test_months_begin_at_midnight_of_the_lab() -> None:
    assert quota.next_month(NOW, SHANGHAI) == datetime(2026, 12, 1, tzinfo=SHANGHAI)
    assert quota.next_month(NOW + timedelta(hours=1), SHANGHAI) == datetime(2027, 1, 1, tzinfo=SHANGHAI)
    assert quota.month_start(NOW, SHANGHAI) == datetime(2026, 11, 1, tzinfo=SHANGHAI)
    berlin = ZoneInfo("Europe/Berlin")
    assert quota.next_month(datetime(2026, 10, 31, 23, 30, tzinfo=UTC), berlin).astimezone(UTC) == datetime(
        2026, 11, 30, 23, tzinfo=UTC
    )


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
