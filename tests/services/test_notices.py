"""Who is told of what: choices, news made from what was done, reminders, each once."""

from __future__ import annotations

from datetime import timedelta
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from flask import Flask

from app.config import SERVICES
from app.errors import InvalidInput, NotFound
from app.extensions import db
from app.models import Channel, Event, Host, News, Notice, User, UserState
from app.services import (
    accounts,
    audit,
    bookings,
    changes,
    channels,
    news,
    notice_words,
    notices,
    outbox,
    quota,
    reminders,
    sealing,
    teams,
)
from app.services.claims import Ask
from tests.factories import gpus_of, make_admin, make_booking, make_pending, make_user
from tests.services.conftest import NOW, Freeze

HOUR = timedelta(hours=1)
ALLOWED = tuple(SERVICES.split())
KEY = "only for tests"
NTFY = "ntfys://ntfy.sh/a-secret-topic"


def told(user: User) -> list[Event]:
    query = sa.select(Notice.event).where(Notice.user_id == user.id).order_by(Notice.id)
    return [Event(event) for event in db.session.scalars(query)]


def everything(user: User, way: str = notices.MAIL) -> None:
    notices.choose(user, {event: [way] for event in notices.offered(user)})


def test_a_booking_is_news_with_its_audit_event_and_its_owner_is_told_once(alice: User, host: Host) -> None:
    everything(alice)
    booking = bookings.create(alice, Ask(NOW + HOUR, gpu_ids=(gpus_of(host)[0].id,)), 900)
    assert db.session.scalar(sa.select(sa.func.count()).select_from(News)) == 1
    assert news.collect(mail=True) == 1
    assert news.collect(mail=True) == 0
    (notice,) = notices.latest(alice)
    assert (notice.event, notice.details["booking"], notice.details["host"]) == (Event.MADE, booking.id, "lab03")


def test_an_event_that_is_recorded_once_is_news_once(host: Host) -> None:
    for _ in range(2):
        audit.record("agent:lab03", "instance.force_stopped", "instance:x", key="stopped:1", host="lab03")
    audit.record("alice", "channel.added", "channel:1")
    assert db.session.scalar(sa.select(sa.func.count()).select_from(News)) == 1
    assert len(audit.recent(target="instance:x")) == 1


def test_nobody_is_told_what_they_did_themselves(alice: User, host: Host) -> None:
    everything(alice)
    booking = make_booking(alice, gpus_of(host)[:1], NOW + HOUR, NOW + 2 * HOUR)
    changes.move_end(alice, booking.id, NOW + 3 * HOUR, 900)
    changes.move_end(make_admin("root-admin"), booking.id, NOW + 4 * HOUR, 900)
    news.collect(mail=True)
    (notice,) = notices.latest(alice)
    assert (notice.event, notice.details["by"]) == (Event.MOVED, "root-admin")
    assert notice.details["before"] == (NOW + 3 * HOUR).isoformat()


def test_admins_hear_who_waits_and_what_is_wrong(alice: User, host: Host) -> None:
    admin = make_admin("root-admin")
    accounts.register("newcomer", "a long enough word", full_name="New", email="new@example.org")
    audit.record("agent:lab03", "gpu.quarantined", f"gpu:{gpus_of(host)[1].id}", host="lab03", reason="held")
    audit.record("agent:lab03", "gpu.intruder", f"gpu:{gpus_of(host)[1].id}", host="lab03")
    news.collect(mail=True)
    assert told(admin) == [Event.WAITING, Event.QUARANTINE, Event.ALARM]
    assert notices.latest(admin)[1].details["gpu"] == 1
    assert told(alice) == []


def test_a_loop_of_programs_without_a_booking_is_told_of_once_an_hour(host: Host) -> None:
    admin, gpu = make_admin("root-admin"), gpus_of(host)[0]
    kinds = ("gpu.intruder", "gpu.used_unbooked")
    for number in range(40):
        audit.record("agent:lab03", kinds[number % 2], f"gpu:{gpu.id}", host="lab03", instance="beta", process=number)
    audit.record("agent:lab03", "gpu.intruder", f"gpu:{gpu.id}", host="lab03", instance="gamma")
    news.collect(mail=True)
    assert [one.details["instance"] for one in reversed(notices.latest(admin))] == ["beta", "gamma"]
    db.session.execute(sa.update(Notice).values(key=sa.func.concat("an hour ago:", Notice.key)))
    audit.record("agent:lab03", "gpu.intruder", f"gpu:{gpu.id}", host="lab03", instance="beta", process=41)
    news.collect(mail=True)
    assert len(notices.latest(admin)) == 3


def test_whoever_waited_is_told_the_decision(app: Flask, host: Host) -> None:
    first, second = make_pending("first"), make_pending("second")
    settings = app.extensions["berth"]
    accounts.approve("first", 10, actor="admin", zone=settings.zone)
    accounts.refuse("second", "Not of this lab", actor="admin")
    news.collect(mail=True)
    assert told(first) == told(second) == [Event.APPROVED]
    assert notices.latest(second)[0].details["reason"] == "Not of this lab"


def test_starts_and_ends_are_told_once_each_and_anew_after_an_extension(
    alice: User, host: Host, freeze: Freeze
) -> None:
    everything(alice)
    booking = make_booking(alice, gpus_of(host)[:2], NOW, NOW + 2 * HOUR)

    def at(moment, expected: list[Event]) -> None:
        before = len(told(alice))
        freeze(moment)
        for _ in range(2):
            reminders.of_bookings(mail=True)
        assert told(alice)[before:] == expected, moment

    at(NOW - HOUR, [])
    at(NOW, [Event.STARTS])
    at(NOW + HOUR, [Event.ENDS_SOON])
    at(NOW + 1.75 * HOUR, [Event.ENDS_SOON])
    changes.move_end(alice, booking.id, NOW + 3 * HOUR, 900)
    at(NOW + 1.9 * HOUR, [])
    at(NOW + 2 * HOUR, [Event.ENDS_SOON])
    at(NOW + 3 * HOUR, [Event.ENDED])
    at(NOW + 4 * HOUR, [])


def _said(person: User, url: str = "https://berth.example") -> str:
    (notice,) = notices.latest(person)
    return notice_words.message(person, [notice], url, ZoneInfo("UTC")).text


def test_what_ends_soon_says_to_when_it_can_be_extended(alice: User, host: Host) -> None:
    """In ten minutes another has it: to two hours, else to that, else not at all and why."""
    gpus, end = gpus_of(host)[:1], NOW + HOUR / 4
    booking = make_booking(alice, gpus, NOW - 2 * HOUR, end)
    following = make_booking(make_user("bob"), gpus, end + HOUR / 2, end + HOUR)
    reminders.of_bookings(mail=True)
    assert "It can be extended to Tue 3 Nov 14:45" in _said(alice)
    assert f"Extend it or end it now: https://berth.example/bookings/{booking.id}/change" in _said(alice)
    db.session.execute(sa.delete(Notice))
    changes.cancel(following.user, following.id)
    reminders.of_bookings(mail=True)
    assert "It can be extended to Tue 3 Nov 16:15" in _said(alice)


def test_what_ends_soon_and_cannot_go_on_says_why(alice: User, host: Host) -> None:
    gpus, end = gpus_of(host), NOW + HOUR / 4
    make_booking(alice, gpus[:1], NOW - 2 * HOUR, end)
    make_booking(make_user("bob"), gpus[:1], end, end + HOUR)
    reminders.of_bookings(mail=True)
    assert "It cannot be extended: its GPUs are booked from Tue 3 Nov 14:15 on." in _said(alice)
    assert "Extend it" not in _said(alice)
    poor = make_user("carol", hours=3)
    make_booking(poor, gpus[1:2], NOW - 2.75 * HOUR, end)
    reminders.of_bookings(mail=True)
    assert "It cannot be extended: not enough GPU-hours are left." in _said(poor)
    long = make_user("dave", hours=1000)
    long.locale = "zh_Hans_CN"
    make_booking(long, gpus[2:3], end - 72 * HOUR, end)
    reminders.of_bookings(mail=True)
    assert "72 小时" in _said(long), "the lab's rule, in the reader's language"
    assert "Extend" not in _said(long)


def test_what_goes_on_in_the_next_booking_does_not_end(alice: User, host: Host, freeze: Freeze) -> None:
    everything(alice)
    gpus = gpus_of(host)[:1]
    make_booking(alice, gpus, NOW - 2 * HOUR, NOW + HOUR / 10)
    make_booking(alice, gpus, NOW + HOUR / 10, NOW + 5 * HOUR)
    reminders.of_bookings(mail=True)
    assert told(alice) == []


def test_a_cancelled_booking_does_not_start(alice: User, host: Host, freeze: Freeze) -> None:
    everything(alice)
    booking = make_booking(alice, gpus_of(host)[:1], NOW + HOUR, NOW + 2 * HOUR)
    changes.cancel(alice, booking.id)
    freeze(NOW + HOUR)
    reminders.of_bookings(mail=True)
    assert told(alice) == []


def test_a_low_quota_is_told_once_a_month(app: Flask, alice: User, freeze: Freeze) -> None:
    settings = app.extensions["berth"]
    assert alice.account is not None
    quota.set_monthly(alice.account, 100, settings.zone, actor="admin")
    reminders.of_accounts(mail=True)
    assert told(alice) == []
    quota.grant(alice.account, -195, actor="admin")
    db.session.refresh(alice.account)
    for _ in range(2):
        reminders.of_accounts(mail=True)
    assert told(alice) == [Event.QUOTA_LOW]


def test_nor_is_a_low_quota_kept_from_whoever_has_no_monthly_hours(alice: User) -> None:
    account = alice.account
    assert account is not None

    def change(hours: float) -> list[Event]:
        quota.grant(account, hours, actor="admin", key=f"to {hours}")
        db.session.refresh(account)
        for _ in range(2):
            reminders.of_accounts(mail=True)
        return told(alice)

    assert change(1800) == []
    assert change(180 - account.balance / 3600) == [], "a tenth of what came last"
    assert change(-1) == [Event.QUOTA_LOW]
    assert change(2000) == [Event.QUOTA_LOW]
    assert change(-2001) == [Event.QUOTA_LOW] * 2, "the new hours are nearly used up too"


def test_those_who_run_a_team_hear_that_its_hours_are_few(app: Flask, alice: User) -> None:
    boss, member = make_admin("boss"), make_user("member")
    team = teams.create(boss, "Vision", "alice", 100)
    teams.add(boss, team, "member")
    quota.grant(team, -95, actor="boss")
    db.session.refresh(team)
    assert reminders.of_accounts(mail=True) == 1
    assert (told(alice), told(member)) == ([Event.QUOTA_LOW], [])
    (notice,) = db.session.scalars(db.select(Notice).where(Notice.user_id == alice.id))
    found = notice_words.message(alice, [notice], "https://b.example", app.extensions["berth"].zone)
    assert found.title == "5 GPU-hours of Vision are left"


def test_admins_hear_once_that_a_host_says_nothing(host: Host, alice: User) -> None:
    admin = make_admin()
    host.seen_at = NOW - HOUR
    db.session.flush()
    for _ in range(2):
        reminders.of_hosts(mail=True)
    assert told(admin) == [Event.ALARM]
    assert told(alice) == []


def test_one_is_told_by_the_ways_one_chose_and_by_no_other(alice: User) -> None:
    channel = channels.add(alice, "phone", NTFY, allowed=ALLOWED, secret_key=KEY)
    usual = notices.chosen(alice)
    assert usual[Event.ENDS_SOON] == ["mail", str(channel.id)]
    assert usual[Event.ENDED] == []
    notices.choose(alice, {Event.ENDED: [str(channel.id), "999", "nonsense"]})
    assert notices.chosen(alice)[Event.ENDED] == [str(channel.id)]
    assert notices.chosen(alice)[Event.ENDS_SOON] == []
    second = channels.add(alice, "", "feishu://abcdef-123", allowed=ALLOWED, secret_key=KEY)
    assert notices.chosen(alice)[Event.ENDS_SOON] == [str(second.id)]
    channels.remove(alice, second.id)
    assert notices.chosen(alice)[Event.ENDS_SOON] == []


def test_nobody_gets_mail_without_a_mail_server_or_an_address(alice: User, host: Host) -> None:
    everything(alice)
    make_booking(alice, gpus_of(host)[:1], NOW, NOW + 2 * HOUR)
    assert reminders.of_bookings(mail=False) == 0
    alice.email = ""
    assert reminders.of_bookings(mail=True) == 0


def test_a_suspended_person_is_told_nothing(alice: User, host: Host) -> None:
    everything(alice)
    make_booking(alice, gpus_of(host)[:1], NOW, NOW + 2 * HOUR)
    alice.state = UserState.DISABLED
    assert reminders.of_bookings(mail=True) == 0


@pytest.mark.parametrize(
    "address",
    [
        "file:///etc/passwd",
        "dbus://",
        "syslog://",
        "rsyslog://10.0.0.1",
        "gnome://",
        "json://127.0.0.1:6379",
        "mailto://user:pass@example.org",
        "https://example.org/hook",
        "workflows://prod.example.org:443/aaaaaaaaaaaaaaaaaaaa/bbbbbbbbbbbbbbbbbbbb?template=/etc/passwd",
        "jsons://example.org/?verify=no",
        "jsons://example.org/?redirect=yes&rto=1000",
        "jsons://example.org/?attach=/etc/passwd",
        "jsons://example.org/?to=a;verify=no",
        "jsons://example.org/x?to=a;method=DELETE;+X-Key=v",
        "jsons://example.org/x?to=a;:field=v",
        "jsons://example.org/x#?method=DELETE",
        "workflows://prod.example.org:443/aaaaaaaaaaaaaaaaaaaa/bbbbbbbbbbbbbbbbbbbb?to=x;template=/etc/passwd",
        "jsons://example.org/\r\nX: y",
        "ntfys://",
        "nonsense",
        "",
    ],
)
def test_addresses_that_reach_this_machine_or_turn_safety_off_are_refused(alice: User, address: str) -> None:
    with pytest.raises(InvalidInput):
        channels.add(alice, "x", address, allowed=ALLOWED, secret_key=KEY)
    assert notices.channels_of(alice) == []


@pytest.mark.parametrize(
    "address",
    [
        "wecombot://botkey-12345",
        "https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key=12345-abcde",
        "feishu://abcdef-123",
        "https://open.larksuite.com/open-apis/bot/v2/hook/abcdef-123",
        "dingtalk://abcdefghijkl",
        "https://hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ",
        "tgram://123456789:abcdefg_hijklmnop/12315544/",
        NTFY,
    ],
)
def test_the_services_that_people_use_are_taken_and_their_addresses_are_secrets(alice: User, address: str) -> None:
    channel = channels.add(alice, "", address, allowed=ALLOWED, secret_key=KEY)
    assert channel.scheme in ALLOWED
    assert sealing.unseal(KEY, channel.sealed) == address
    assert sealing.unseal("another key", channel.sealed) is None
    stored = db.session.execute(sa.text("SELECT row_to_json(c)::text FROM channels c")).scalar_one()
    stored += db.session.execute(sa.text("SELECT string_agg(details::text, '') FROM audit_events")).scalar_one()
    assert address.rpartition("/")[2].rpartition("=")[2] not in stored or address.endswith("/")


def test_another_ones_service_cannot_be_tested_or_removed(alice: User) -> None:
    channel = channels.add(alice, "phone", NTFY, allowed=ALLOWED, secret_key=KEY)
    mallory = make_user("mallory")
    with pytest.raises(NotFound):
        channels.test(mallory, str(channel.id), mail=True)
    with pytest.raises(NotFound):
        channels.remove(mallory, channel.id)


def _waiting(user: User, event: Event, number: int) -> None:
    details = {"action": "x", "target": "y"}
    notices.post(user, notices.Telling(event, f"{event}:{number}", details), None)


def test_many_at_once_are_one_message_and_the_next_ones_wait(alice: User, freeze: Freeze) -> None:
    for number in range(40):
        _waiting(alice, Event.ALARM, number)
    (batch,) = outbox.claim()
    assert len(batch.notices) == 40
    outbox.sent(batch)
    _waiting(alice, Event.ALARM, 41)
    assert outbox.claim() == []
    _waiting(alice, Event.ENDS_SOON, 42)
    (batch,) = outbox.claim()
    assert len(batch.notices) == 2, "what is urgent takes along what waits"
    outbox.sent(batch)
    _waiting(alice, Event.ALARM, 43)
    freeze(NOW + notices.GATHER)
    assert len(outbox.claim()) == 1


def test_one_persons_flood_delays_nobody_else(alice: User) -> None:
    _waiting(alice, Event.ALARM, 0)
    outbox.sent(outbox.claim()[0])
    for number in range(1, 30):
        _waiting(alice, Event.ALARM, number)
    _waiting(make_user("bob"), Event.ALARM, 99)
    (batch,) = outbox.claim(limit=1)
    assert batch.notices[0].key.startswith("alarm:99")


def test_what_fails_is_tried_again_later_and_given_up_in_the_end(alice: User, freeze: Freeze) -> None:
    _waiting(alice, Event.TEST, 1)
    moment = NOW
    for wait in outbox.WAITS:
        (batch,) = outbox.claim()
        outbox.failed(batch, "mail_server", final=False)
        freeze(moment + wait - timedelta(seconds=1))
        assert outbox.claim() == []
        moment += wait
        freeze(moment)
    (batch,) = outbox.claim()
    outbox.failed(batch, "mail_server", final=False)
    assert outbox.count_given_up() == 1
    freeze(moment + timedelta(days=1))
    assert outbox.claim() == []
    outbox.again("admin", batch.notices[0].id)
    assert len(outbox.claim()) == 1


def test_what_is_over_is_not_sent_late(alice: User, freeze: Freeze) -> None:
    telling = notices.Telling(Event.ENDS_SOON, "ends_soon:1", {}, NOW + HOUR)
    notices.post(alice, telling, None)
    freeze(NOW + HOUR)
    assert outbox.claim() == []
    assert outbox.given_up() == []


def test_a_service_that_is_removed_takes_along_what_waits_for_it(alice: User) -> None:
    channel = channels.add(alice, "phone", NTFY, allowed=ALLOWED, secret_key=KEY)
    channels.test(alice, str(channel.id), mail=True)
    channels.remove(alice, channel.id)
    assert db.session.scalar(sa.select(sa.func.count()).select_from(Notice)) == 0
    assert db.session.scalar(sa.select(sa.func.count()).select_from(Channel)) == 0
