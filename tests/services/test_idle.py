"""Bookings whose GPUs do nothing: what counts as that, what their owners hear, and what comes back."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from sqlalchemy.orm import joinedload

from app.errors import Conflict, NotFound, RuleRefused
from app.extensions import db, lab_zone
from app.models import Charge, Event, Idling, LedgerEntry, News, Notice, Outcome, Reclaim
from app.services import activity, bookings, changes, charges, news, notice_words, policy, quota, recording, samples
from app.services.claims import Ask
from app.services.idle import keeping, sight, steps, told
from app.services.idle.judging import Minute, State, Terms, Todo, judge, todo
from app.services.reports import incidents
from app.services.reports.pieces import Key, Scope, numbers
from app.services.reports.spans import Span
from app.services.rules import classes
from app.services.samples import Part
from tests.factories import gpus_of, make_admin, make_user
from tests.services.idling import HOUR, MINUTE, NOW, Lab

TERMS = Terms(60, 120)
SOONER = Terms(60, 120, 20)
LATER = NOW + timedelta(days=36500)  # events are dated by the database's own clock


@pytest.fixture
def lab(app: Flask, freeze: Callable[[datetime], None]) -> Lab:
    return Lab(freeze)


def minutes(start: int, end: int, *, busy: tuple[int, ...] = (), memory: int = 0) -> list[Minute]:
    return [Minute(NOW + one * MINUTE, one in busy, memory) for one in range(start, end)]


@pytest.mark.parametrize(
    ("measured", "terms", "state", "since"),
    [
        (minutes(0, 60), TERMS, State.IDLE, 0),
        (minutes(0, 59), TERMS, State.USED, 0),
        (minutes(0, 60, memory=100), TERMS, State.USED, 0),
        (minutes(0, 120, memory=100), TERMS, State.IDLE, 0),
        (minutes(0, 60, memory=100) + minutes(60, 120), TERMS, State.IDLE, 0),
        (minutes(0, 300, memory=100), Terms(60, 0), State.USED, 0),
        (minutes(0, 60, busy=(3,)), TERMS, State.USED, 4),
        (minutes(0, 100, busy=(3, 39)), TERMS, State.IDLE, 40),
        (minutes(0, 60, busy=(59,)), TERMS, State.USED, None),
        (minutes(0, 40) + minutes(45, 65), TERMS, State.IDLE, 0),
        (minutes(0, 40) + minutes(46, 66), TERMS, State.USED, 46),
        (minutes(-200, 59), TERMS, State.USED, 0),
        (minutes(0, 20), SOONER, State.IDLE, 0),
        (minutes(5, 25), SOONER, State.IDLE, 5),
        (minutes(6, 26), SOONER, State.USED, 6),
        (minutes(0, 1, busy=(0,)) + minutes(1, 21), SOONER, State.USED, 1),
        (minutes(0, 1, memory=64) + minutes(1, 21), SOONER, State.USED, 0),
        ([], TERMS, State.UNKNOWN, None),
    ],
    ids=[
        "an hour", "a minute less", "with memory held", "twice as long with memory held", "held before that hour",
        "memory that protects", "a job lately", "a job long ago", "a job now", "an agent that was away for a moment",
        "not measured for longer", "somebody else's time before", "nobody came",
        "nobody came, not seen at first", "perhaps somebody came",
        "somebody came for a minute", "somebody came and held memory", "never measured",
    ],
)  # fmt: skip
def test_what_counts_as_doing_nothing(measured: list[Minute], terms: Terms, state: State, since: int | None) -> None:
    now = measured[-1].at + 2 * MINUTE if measured else NOW
    said = judge(measured, NOW, now, terms)
    assert (said.state, said.since) == (state, None if since is None else NOW + since * MINUTE)


def test_old_measurements_say_nothing() -> None:
    assert judge(minutes(0, 90), NOW, NOW + 96 * MINUTE, TERMS).state == State.UNKNOWN


def test_told_and_then_given_back_once(lab: Lab) -> None:
    lab.measure(0, 59)
    assert lab.look(60) == []
    assert lab.events() == []
    lab.measure(59, 61)
    lab.look(61)
    lab.look(62)
    assert lab.events() == ["booking.idle_warned"]
    lab.measure(61, 76)
    assert lab.look(75) == []
    [ended] = lab.look(76.5)
    assert lab.look(77) == []
    assert (ended.id, ended.ends_at) == (lab.booking.id, NOW + 76.5 * MINUTE)
    assert lab.events() == ["booking.idle_warned", "booking.reclaimed"]
    assert quota.held_for(ended.id) == 2 * 76.5 * 60
    lab.freeze(NOW + 80 * MINUTE)
    assert recording.settle_ended(lab.host) == 1
    assert quota.free(lab.owner.account_id or 0) == 100 * 3600 - 2 * 76.5 * 60
    found = told.sums()[Outcome.RECLAIMED]
    assert (found.count, found.seconds) == (1, 2 * (480 - 76.5) * 60)
    other = make_user("next")
    ids = tuple(gpu.id for gpu in gpus_of(lab.host))
    assert bookings.create(other, Ask(ends_at=NOW + 5 * HOUR, gpu_ids=ids), 900).starts_at == NOW + 80 * MINUTE


def test_a_job_begun_before_its_time_is_up_is_waited_for(lab: Lab) -> None:
    """What is measured comes minutes late."""
    lab.measure(0, 71)
    lab.look(61)
    assert lab.look(76) == [], "nobody knows yet what was done in its last minutes"
    lab.measure(71, 77, busy=90)
    assert lab.look(77) == []
    assert [one.outcome for one in db.session.scalars(sa.select(Idling))] == [Outcome.OVER]


@pytest.mark.parametrize(("measured", "known"), [(50, True), (49, False)])
def test_what_is_known_ends_within_the_last_minute(measured: int, known: bool) -> None:
    """A minute counts from its half on; what comes later of it is not known yet."""
    found = [*minutes(0, 76), Minute(NOW + 76 * MINUTE, busy=False, measured=timedelta(seconds=measured))]
    due, now = NOW + timedelta(minutes=76, seconds=50), NOW + timedelta(minutes=77, seconds=5)
    step = todo(judge(found, NOW, now, TERMS), due, NOW + 8 * HOUR, now, 15 * MINUTE)
    assert step == (Todo.GIVE_BACK if known else Todo.NOTHING)


def test_half_a_minute_is_known_so_far(lab: Lab) -> None:
    lab.measure(0, 61)
    lab.freeze(NOW + 62.5 * MINUTE)
    addresses = [gpu.pci_address for gpu in gpus_of(lab.host)]
    at = NOW + 61 * MINUTE
    for seconds, pci in zip((40, 50), addresses, strict=True):
        samples.deliver(lab.host.id, pci, [Part(pci, at, lab.booking.id, "liwei", sampled_ms=1000 * seconds)])
    [said] = sight.verdicts(sight.running()).values()
    assert said.until == at + timedelta(seconds=40)


def test_extended_before_its_start_says_not_that_one_came(lab: Lab) -> None:
    classes.change(make_admin(), classes.default().id, {"noshow_minutes": 20})
    lab.booking.extended_at = NOW - HOUR
    lab.measure(0, 21)
    lab.look(20)
    assert list(db.session.scalars(sa.select(Idling.absent))) == [True]


def test_shortened_and_extended_again_is_no_keep(lab: Lab) -> None:
    policy.current().keeps = 0
    lab.measure(0, 78)
    lab.look(61)
    lab.freeze(NOW + 70 * MINUTE)
    for hours in (7.5, 7, 7.75, 8):
        changes.move_end(lab.owner, lab.booking.id, NOW + hours * HOUR, 900)
    assert len(lab.look(77)) == 1


@pytest.mark.parametrize(("before", "later"), [((), (8.5,)), ((), (7, 8.5)), ((2,), (4,))])
def test_wanted_for_longer_than_ever_it_begins_anew(
    lab: Lab, before: tuple[float, ...], later: tuple[float, ...]
) -> None:
    """Than ever since it began: what it was before that was a plan."""
    for minute, ends in ((-60, before), (70, later)):
        if minute > 0:
            lab.measure(0, 78)
            lab.look(61)
        lab.freeze(NOW + minute * MINUTE)
        for hours in ends:
            changes.move_end(lab.owner, lab.booking.id, NOW + hours * HOUR, 900)
    assert lab.look(77) == []
    assert lab.outcomes() == ["over"]


def test_what_is_over_cannot_be_kept(lab: Lab) -> None:
    lab.measure(0, 61)
    lab.look(61)
    changes.move_end(lab.owner, lab.booking.id, NOW + 75 * MINUTE, 900)
    lab.freeze(NOW + 75.5 * MINUTE)
    with pytest.raises(Conflict, match="over"):
        keeping.keep(lab.owner, lab.booking.id)


def test_the_owner_reads_what_happens_and_may_say_keep(lab: Lab) -> None:
    lab.measure(0, 1, memory=100)
    lab.measure(1, 61, memory=10)
    lab.look(61)
    news.collect(mail=True)
    [notice] = db.session.scalars(sa.select(Notice).options(joinedload(Notice.user)))
    assert (notice.event, notice.expires_at) == (Event.IDLE, NOW + 76 * MINUTE)
    message = notice_words.message(lab.owner, [notice], "https://b.example", lab_zone())
    assert "charged" not in message.text
    assert message.title.startswith(
        "Nothing done since Tue 24 Nov 14:00: 2 GPUs on lab03, given back at Tue 24 Nov 15:16"
    )
    assert f"Keep them for 60 minutes (2 more times): https://b.example/bookings/{lab.booking.id}#idle" in message.text
    assert lab.look(76) == [], "nothing was measured for so long: nobody knows"
    assert keeping.keep(lab.owner, lab.booking.id) == NOW + 136 * MINUTE
    assert keeping.keep(lab.owner, lab.booking.id) == NOW + 136 * MINUTE, "said twice it counts once"
    lab.measure(61, 140)
    assert lab.look(135) == []
    lab.look(136)
    keeping.keep(lab.owner, lab.booking.id)
    lab.measure(140, 240)
    lab.look(196)
    with pytest.raises(RuleRefused):
        keeping.keep(lab.owner, lab.booking.id)
    assert [one.id for one in lab.look(211)] == [lab.booking.id]
    assert lab.outcomes() == ["kept", "kept", "reclaimed"]
    assert [one for one in lab.events() if one == "booking.kept"] == ["booking.kept"] * 2
    with pytest.raises(Conflict):
        keeping.keep(lab.owner, lab.booking.id)


def test_who_was_sent_nothing_is_told_once_more(lab: Lab) -> None:
    lab.measure(0, 120)
    lab.look(61)
    lab.tell(mail="down")
    assert lab.look(76.5) == []
    assert lab.outcomes() == ["over"]
    lab.look(77)
    assert lab.events() == ["booking.idle_warned"] * 2
    lab.tell(mail="down")
    assert [one.id for one in lab.look(92.5)] == [lab.booking.id], "a way that never works keeps no GPU"


def test_nobody_elses_booking_is_kept(lab: Lab) -> None:
    with pytest.raises(NotFound):
        keeping.keep(make_user("zhao"), lab.booking.id)
    with pytest.raises(Conflict):
        keeping.keep(lab.owner, lab.booking.id)


def test_one_busy_gpu_keeps_them_all_and_one_that_is_not_measured_too(lab: Lab) -> None:
    lab.measure(0, 90, gpus=[0])
    lab.look(90)
    assert lab.events() == []
    lab.measure(0, 90, gpus=[1], busy=1)
    lab.look(91)
    assert lab.events() == []


def test_what_others_do_on_it_keeps_nothing(lab: Lab) -> None:
    lab.measure(0, 61)
    lab.measure(0, 61, busy=90, own=False)
    lab.look(61)
    assert lab.events() == ["booking.idle_warned"]


@pytest.mark.parametrize("percent", [1, 20])
def test_the_live_page_calls_idle_what_would_be_given_back(lab: Lab, percent: int) -> None:
    policy.current().idle_percent = percent
    held = {gpu.id: NOW for gpu in gpus_of(lab.host)}
    lab.measure(0, 1, busy=percent)
    lab.measure(1, 61, busy=percent - 1)
    lab.measure(0, 61, busy=90, own=False)
    lab.look(61)
    assert set(activity.idle_since(held, {}, NOW + 61 * MINUTE).values()) == {2 * 60 * MINUTE}, (
        "by both who had it measured"
    )
    [found] = db.session.scalars(sa.select(Idling))
    assert found.since == NOW + MINUTE
    lab.measure(61, 62, busy=percent)
    lab.look(62)
    assert set(activity.idle_since(held, {}, NOW + 62 * MINUTE).values()) == {timedelta(0)}
    assert lab.outcomes() == ["over"]


@pytest.mark.parametrize("what", ["a job", "extended", "shortened"])
def test_a_warning_is_over_when_it_is_not_true_any_more(lab: Lab, what: str) -> None:
    lab.measure(0, 61)
    lab.look(61)
    lab.measure(61, 70)
    if what == "a job":
        lab.measure(70, 71, busy=50)
    lab.measure(71, 90)
    lab.freeze(NOW + 75 * MINUTE)
    if what == "extended":
        changes.move_end(lab.owner, lab.booking.id, NOW + 9 * HOUR, 900)
    if what == "shortened":
        changes.move_end(lab.owner, lab.booking.id, NOW + 90 * MINUTE, 900)
        db.session.flush()
    ended = lab.look(76)
    assert (len(ended), lab.outcomes()) == ((1, ["reclaimed"]) if what == "shortened" else (0, ["over"]))


def test_who_extends_between_the_look_and_the_deed_keeps_it(lab: Lab) -> None:
    lab.measure(0, 78)
    lab.look(61)
    lab.freeze(NOW + 77 * MINUTE)
    found = steps.look()
    changes.move_end(lab.owner, lab.booking.id, NOW + 9 * HOUR, 900)
    assert [steps.act(one) for one in found] == [None]
    assert (lab.outcomes(), "booking.reclaimed" in lab.events()) == (["over"], False)


def test_who_could_not_answer_is_told_anew(lab: Lab) -> None:
    lab.measure(0, 300)
    lab.look(61)
    assert lab.look(90) == []
    assert lab.look(91) == []
    assert lab.outcomes() == ["over", "open"]
    assert len(lab.look(106)) == 1


def test_a_trial_takes_nothing_and_says_nothing(lab: Lab) -> None:
    policy.current().reclaim = Reclaim.TRIAL
    lab.measure(0, 130)
    lab.measure(130, 140, busy=50)
    for minute in (61, 76, 77, 120):
        assert lab.look(minute) == []
    assert (lab.events(), lab.outcomes()) == (["booking.would_reclaim"], ["would"])
    assert db.session.scalars(sa.select(News)).all() == []
    with pytest.raises(Conflict):
        keeping.keep(lab.owner, lab.booking.id)
    [found] = told.latest()
    assert (found.idling.seconds, found.busy_after) == (2 * (480 - 76) * 60, 2 * 10 * 30)
    policy.current().reclaim = Reclaim.ON
    lab.look(121)
    assert lab.outcomes() == ["would", "open"]
    policy.current().reclaim = Reclaim.OFF
    lab.look(140)
    assert lab.outcomes() == ["would", "over"]


def test_what_berth_could_not_give_and_what_ends_anyway_is_left_alone(lab: Lab) -> None:
    lab.measure(0, 475)
    lab.allocations(attached_at=None, trouble="unreachable")
    lab.look(61)
    lab.allocations(trouble="stopped")
    lab.look(466)
    assert lab.events() == []
    lab.look(464)
    assert lab.events() == ["booking.idle_warned"]


def test_what_berth_could_not_give_does_not_count_afterwards_either(lab: Lab) -> None:
    lab.measure(0, 130)
    lab.allocations(attached_at=None, trouble="stopped", ready_at=NOW + 65 * MINUTE)
    lab.look(124)
    assert lab.events() == []
    lab.look(125)
    assert lab.events() == ["booking.idle_warned"]


def test_a_class_has_its_own_time_and_late_attachment_counts(lab: Lab) -> None:
    boss = make_admin("boss")
    classes.change(boss, classes.default().id, {"idle_minutes": 20})
    lab.allocations(attached_at=NOW + 30 * MINUTE)
    lab.measure(0, 60)
    lab.look(49)
    assert lab.events() == []
    lab.look(50)
    assert lab.events() == ["booking.idle_warned"]


@pytest.mark.parametrize("what", ["nothing", "a job", "memory", "kept"])
def test_a_booking_to_which_nobody_comes_goes_sooner(lab: Lab, what: str) -> None:
    """Told after the class's time for that, and never taken from one who came, whatever they did."""
    classes.change(make_admin("boss"), classes.default().id, {"noshow_minutes": 20})
    lab.measure(0, 20)
    lab.look(20)
    [opened] = db.session.scalars(sa.select(Idling))
    assert (opened.absent, opened.due_at) == (True, NOW + 35 * MINUTE)
    if what == "kept":
        lab.freeze(NOW + 30 * MINUTE)
        keeping.keep(lab.owner, lab.booking.id)
    lab.measure(20, 25, busy=50 if what == "a job" else 0, memory=900 if what == "memory" else 0)
    lab.measure(25, 36)
    gone = lab.look(35.5)
    assert (lab.outcomes(), len(gone)) == (
        {"nothing": (["reclaimed"], 1), "kept": (["kept"], 0)}.get(what, (["over"], 0))
    )
    span = Span(NOW, LATER, lab_zone(), (), (NOW, LATER))
    came = [(user.username, number) for user, number in incidents.of(span, Scope()).no_shows]
    assert came == ([("liwei", 1)] if what == "nothing" else [])


@pytest.mark.parametrize("what", ["extended", "without a machine"])
def test_who_came_and_what_ends_by_itself_has_the_usual_time(lab: Lab, what: str) -> None:
    classes.change(make_admin("boss"), classes.default().id, {"noshow_minutes": 20})
    lab.freeze(NOW + MINUTE)
    if what == "extended":
        changes.move_end(lab.owner, lab.booking.id, NOW + 9 * HOUR, 900)
    else:
        lab.allocations(attached_at=None, trouble="stopped")  # services.noshows ends it, in a pass over the host
    lab.measure(0, 61)
    lab.look(59)
    assert lab.outcomes() == []
    lab.look(61)
    assert lab.outcomes() == ["open"]


def test_who_did_not_come_reads_that(lab: Lab) -> None:
    lab.measure(0, 78)
    for minute in (61, 76.5):
        lab.look(minute)
        lab.tell(mail="up")
    found = db.session.scalars(sa.select(Notice).options(joinedload(Notice.user)).order_by(Notice.id))
    said = [notice_words.message(lab.owner, [notice], "https://b.example", lab_zone()) for notice in found]
    assert [one.title for one in said] == [
        "Not used yet: 2 GPUs on lab03, given back at Tue 24 Nov 15:16",
        "Given back, since nobody used it: 2 GPUs on lab03",
    ]
    assert "Your 2 GPUs were not used yet; at Tue 24 Nov 15:16 the rest of the time is given back." in said[0].text


def test_since_when_is_said_however_long_ago(lab: Lab) -> None:
    lab.measure(0, 5, busy=80)
    lab.measure(5, 400)
    lab.look(400)
    [found] = db.session.scalars(sa.select(Idling))
    assert found.since == NOW + 5 * MINUTE


def ledger(booking_id: int) -> dict[str, int]:
    rows = db.session.scalars(sa.select(LedgerEntry).where(LedgerEntry.booking_id == booking_id))
    return {row.key.partition(":")[0]: row.amount for row in rows if row.kind == "settle"}


def given_back(lab: Lab) -> None:
    lab.measure(0, 77)
    lab.look(61)
    assert len(lab.look(76)) == 1
    lab.freeze(NOW + 2 * HOUR)
    recording.settle_ended(lab.host)


def test_what_was_taken_back_unused_may_cost_as_if_it_was_not(lab: Lab) -> None:
    policy.current().charge = Charge.RESERVED
    given_back(lab)
    news.collect(mail=True)
    told_of = db.session.scalars(sa.select(Notice).options(joinedload(Notice.user))).all()
    assert len(told_of) == 2
    for notice, words in zip(told_of, ("of it are charged then", "of what was left are charged"), strict=True):
        text = notice_words.message(lab.owner, [notice], "https://b.example", lab_zone()).text
        assert f"By the lab's rules 13.47 GPU-hours {words}." in text
    assert ledger(lab.booking.id) == {"unused": -2 * (480 - 76) * 60, "settle": -2 * 76 * 60}
    assert quota.free(lab.owner.account_id or 0) == 84 * 3600


def test_only_attached_time_may_be_charged(lab: Lab, freeze: Callable[[datetime], None]) -> None:
    policy.current().charge = Charge.ATTACHED
    lab.allocations(attached_at=NOW + timedelta(hours=1, microseconds=7), detached_at=NOW + 9 * HOUR)
    db.session.execute(
        sa.text("UPDATE allocations SET attached_at = NULL WHERE id = (SELECT min(id) FROM allocations)")
    )
    freeze(NOW + 9 * HOUR)
    db.session.expire_all()
    recording.settle_ended(lab.host)
    [entry] = db.session.scalars(sa.select(LedgerEntry).where(LedgerEntry.key == f"settle:{lab.booking.id}"))
    assert (entry.amount, charges.explained(entry.note)) == (-7 * 3600, ("attached", 7 * 3600, 16 * 3600))


@pytest.mark.parametrize("charge", Charge)
def test_what_berth_never_gave_costs_nothing(lab: Lab, freeze: Callable[[datetime], None], charge: Charge) -> None:
    """Of two GPUs one was attached all the time, and one stood in quarantine."""
    policy.current().charge = charge
    lab.allocations(attached_at=NOW, detached_at=NOW + 8 * HOUR)
    statement = (
        "UPDATE allocations SET attached_at = NULL, trouble = :what WHERE id = (SELECT min(id) FROM allocations)"
    )
    db.session.execute(sa.text(statement), {"what": "quarantined"})
    freeze(NOW + 9 * HOUR)
    db.session.expire_all()
    recording.settle_ended(lab.host)
    assert ledger(lab.booking.id) == {"settle": -8 * 3600}
    assert quota.free(lab.owner.account_id or 0) == 92 * 3600


@pytest.mark.parametrize(
    ("seconds", "what"),
    [
        (2 * 7 * 3600, {"attached_at": NOW + HOUR}),  # its agent was down, say
        (2 * 8 * 3600, {"attached_at": NOW + MINUTE}),  # as passes go
        (2 * 7.5 * 3600, {"attached_at": NOW + HOUR, "ready_at": NOW + HOUR / 2}),  # then their machine was stopped
        (2 * 8 * 3600, {"attached_at": NOW + HOUR, "ready_at": NOW}),
        (0, {"attached_at": None}),  # nobody ever looked
        (2 * 7.5 * 3600, {"attached_at": None, "trouble": "stopped", "ready_at": NOW + HOUR / 2}),
    ],
)
def test_what_berth_gave_late_costs_from_then_on(
    lab: Lab, freeze: Callable[[datetime], None], seconds: float, what: dict[str, Any]
) -> None:
    policy.current().charge = Charge.RESERVED
    lab.allocations(**what)
    freeze(NOW + 9 * HOUR)
    db.session.expire_all()
    recording.settle_ended(lab.host)
    assert ledger(lab.booking.id) == {"settle": -seconds}
    span = Span.of(NOW - HOUR, NOW + 9 * HOUR, lab_zone(), NOW + 9 * HOUR)
    [found] = numbers(span, Key.NOTHING, Scope()).values()
    assert found.reserved - found.not_given == seconds


def test_who_has_no_machine_pays_what_was_reserved(lab: Lab, freeze: Callable[[datetime], None]) -> None:
    lab.allocations(attached_at=None, trouble="stopped", ready_at=NOW)
    freeze(NOW + 9 * HOUR)
    recording.settle_ended(lab.host)
    assert ledger(lab.booking.id) == {"settle": -16 * 3600}


def test_giving_back_by_rule_costs_what_giving_back_costs(lab: Lab) -> None:
    boss = make_admin("boss")
    classes.change(boss, classes.default().id, {"late_hours": 1, "late_percent": 50})
    given_back(lab)
    assert ledger(lab.booking.id) == {"fee": -3600, "settle": -2 * 76 * 60}
