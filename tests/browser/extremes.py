"""A lab in which there is nothing yet, and one in which there is too much of everything; and the pages that show it.

Both are databases with a portal in front, without hosts that run: what no agent is there for is written down as if one
had seen it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import sqlalchemy as sa

from app import clock, create_core
from app.config import Settings
from app.extensions import db, transaction
from app.models import (
    ApiToken,
    AuditEvent,
    Booking,
    Event,
    Feed,
    GpuNow,
    GpuState,
    Host,
    Instance,
    InstanceStatus,
    LedgerEntry,
    Notice,
    Operation,
    OperationKind,
    Role,
    SharedDirectory,
    SshKey,
    TeamMember,
    TemplateState,
    User,
    UserState,
    Wait,
)
from app.models.accounts import TEAM, Account
from app.services import operations
from tests import served
from tests.bench import filling
from tests.browser.looks import Sample
from tests.factories import (
    attach,
    gpus_of,
    make_admin,
    make_booking,
    make_host,
    make_instance,
    make_template,
    make_user,
)

HOSTS = 2  # of eight GPUs each; axe takes its time over each booking of a list
ADMIN, NEWCOMER = "ada", "newcomer"
# As long as they may be, in words and in one piece.
STUDENT = "wolfeschlegelsteinhausenberger1"
FULL_NAME = (
    "Hubert Blaine Wolfeschlegelsteinhausenbergerdorff-Wolfeschlegelsteinhausenbergerdorffsson the Younger of Papua"
)
HOST = "workstation-of-the-department-of-computational-biology-room-417"
MODEL = (
    "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition with 96 GB of GDDR7 memory and everything else there was"
)
MACHINE = "wolfeschlegelsteinhausenberge2"
TEAM_NAME = "Wolfeschlegelsteinhausen.Photogrammetry1"
WORDS = "Fine-tuning of the protein language model for the rebuttal, the third time, since the first two runs diverged"
ONE_PIECE = "s3://results/" + "ablation_without_augmentation_" * 6
TITLE = "the-laptop-that-stands-on-the-desk-in-the-room-at-the-end-of-it"
TROUBLE = "/var/lib/lxd/storage-pools/default/containers/" + "x" * 150
"""Texts that a person or a workstation may come up with."""


@dataclass(frozen=True)
class Extreme:
    """A portal at `url` and what is to be looked at there."""

    url: str
    samples: list[Sample]


@contextmanager
def empty(database_url: str, data: Path) -> Iterator[Extreme]:
    """An admin's first minute, and somebody they let in at once: no host, no machine, no booking."""
    with _core(database_url, data), transaction():
        make_admin(ADMIN, full_name="Ada")
        make_user(NEWCOMER, hours=0)
    with served.portal(database_url, data, BERTH_TZ="Asia/Shanghai") as portal:
        yield Extreme(f"http://127.0.0.1:{portal.port}", [*_theirs(ADMIN), *_own(NEWCOMER)])


@contextmanager
def full(database_url: str, data: Path) -> Iterator[Extreme]:
    """Sixteen GPUs, all booked, by many people with long names; and somebody new among them."""
    with _core(database_url, data):
        with transaction():
            running = _fill(clock.now())
        samples = [*_theirs(ADMIN), *_own(STUDENT), *_deep(running)]
    with served.portal(database_url, data, BERTH_TZ="Asia/Shanghai") as portal:
        yield Extreme(f"http://127.0.0.1:{portal.port}", samples)


def _own(who: str) -> list[Sample]:
    """The pages on which a person finds their own, or nothing."""
    pages = {
        "home": "/",
        "calendar": "/calendar",
        "calendar-list": "/calendar?view=list",
        "find": "/find?find=1&count=2&hours=6",
        "book": "/bookings/new?check=1&count=1&hours=2&now=1",
        "bookings": "/bookings",
        "waits": "/waits",
        "live": "/live",
        "machines": "/machines",
        "machine-new": "/machines/new",
        "quota": "/quota",
        "usage": "/reports",
        "teams": "/teams",
        "settings": "/settings",
        "keys": "/settings/keys",
        "notices": "/settings/notices",
        "calendars": "/settings/calendars",
    }
    return [Sample(who, path, f"{who}-{name}") for name, path in pages.items()]


def _theirs(who: str) -> list[Sample]:
    """The pages on which an admin finds what all have, or nothing."""
    pages = {
        "home": "/",
        "calendar": "/calendar",
        "live": "/live?open=lab02",
        "people": "/people",
        "hosts": "/hosts",
        "templates": "/templates",
        "template-new": "/templates/new/recipe",
        "template-from-machine": "/templates/new/machine",
        "machines": "/admin/machines",
        "machine-new": "/machines/new",
        "reports": "/reports",
        "teams": "/teams",
        "classes": "/rules/classes",
        "audit": "/audit",
        "waits": "/waits/everybody",
        "messages": "/messages",
    }
    return [Sample(who, path, f"{who}-{name}") for name, path in pages.items()]


def _deep(running: int) -> list[Sample]:
    """What there is one of only in a lab that has something."""
    with transaction() as session:
        template = session.scalars(sa.select(sa.func.min(Instance.template_id))).one()
        building = session.scalars(sa.select(Operation.template_id).where(Operation.kind == OperationKind.BUILD)).one()
        team = session.scalars(sa.select(Account.id).where(Account.name == TEAM + TEAM_NAME)).one()
    admins = {
        "host": f"/hosts/{HOST}",
        "maintenance": f"/hosts/{HOST}/maintenance",
        "shares": f"/hosts/{HOST}/shares",
        "person": f"/people/{STUDENT}",
        "several": "/people/approve/several?" + "&".join(f"who=waiting-{number}" for number in range(10)),
        "machine": f"/admin/machines/{HOST}/{MACHINE}",
        "template": f"/templates/{template}",
        "template-building": f"/templates/{building}",
    }
    students = {
        "calendar-open": f"/calendar?open={HOST}",
        "live-open": f"/live?open={HOST}",
        "booking": f"/bookings/{running}",
        "booking-end": f"/bookings/{running}/end",
        "machine": f"/machines/{MACHINE}",
        "machine-delete": f"/machines/{MACHINE}/delete",
        "machine-ways": f"/machines/{MACHINE}/ways",
        "team": f"/teams/{team}",
    }
    return [
        *(Sample(ADMIN, path, f"{ADMIN}-{name}") for name, path in admins.items()),
        *(Sample(STUDENT, path, f"{STUDENT}-{name}") for name, path in students.items()),
    ]


@contextmanager
def _core(database_url: str, data: Path) -> Iterator[None]:
    settings = {"DATABASE_URL": database_url, "BERTH_DATA": str(data), "BERTH_TZ": "Asia/Shanghai"}
    app = create_core(Settings.load(settings | {"SECRET_KEY": "only for tests"}))
    with app.app_context():
        yield
        db.session.remove()
        db.engine.dispose()


def _fill(now: datetime) -> int:
    """Everything; the number of a booking of the student that runs and has all GPUs of a host."""
    admin = make_admin(ADMIN, full_name="Ada")
    student = make_user(STUDENT, hours=20_000, full_name=FULL_NAME)
    others = [make_user(f"person-{number}", hours=500) for number in range(30)]
    for number in range(10):
        more = {
            "reason": ONE_PIECE if number % 2 else WORDS * 4,
            "email": f"{'x' * 60}{number}@{'sub.' * 20}example.org",
        }
        make_user(f"waiting-{number}", state=UserState.PENDING, full_name=FULL_NAME, **more)
    hosts = _hosts(now)
    all_of_it, hours = gpus_of(hosts[0]), timedelta(hours=2)
    running = make_booking(student, all_of_it, now - hours, now + 10 * hours, note=ONE_PIECE[:200])
    attach(running)
    _bookings(now, [student.id, *(other.id for other in others[:15])], [gpu.id for gpu in all_of_it])
    _machines(now, admin, student, others, hosts)
    _of_the_student(now, student, hosts)
    _of_everybody(now, admin, [student, *others], hosts)
    return running.id


def _hosts(now: datetime) -> list[Host]:
    """Eight of them, one away and one with a GPU held back; what was read of their GPUs a moment ago."""
    names = [HOST, *(f"lab{number:02}" for number in range(2, HOSTS + 1))]
    hosts = [make_host(name, gpus=8, model=MODEL[:120], seen_at=now, pass_at=now, pass_ms=80) for name in names]
    hosts[0].checked_at, hosts[0].address = now, f"{HOST}.{'sub.' * 30}example.org"
    hosts[0].findings = [
        {"level": "bad" if number % 2 else "warn", "what": WORDS, "detail": TROUBLE, "fix": f"{WORDS} {TROUBLE}"}
        for number in range(6)
    ]
    hosts[0].images = [{"alias": f"{MACHINE}/{number}", "description": WORDS} for number in range(10)]
    hosts[1].trouble = TROUBLE
    held_back = gpus_of(hosts[0])[7]
    held_back.state, held_back.quarantined_at, held_back.quarantine_reason = GpuState.QUARANTINE, now, TROUBLE
    values = {"memory_used": 36_000, "memory_total": 98_304, "power": 250, "power_limit": 300, "temperature": 61}
    program = {"pid": 4_194_303, "name": "python-" * 10, "instance": MACHINE, "memory": 9000}
    program |= {"utilisation": 20, "booking": None}
    for gpu in [gpu for host in hosts for gpu in gpus_of(host)]:
        share = {"utilisation": gpu.minor * 12}
        db.session.add(GpuNow(gpu_id=gpu.id, seen_at=now, values=values | share, processes=[program] * 4))
    unread, long_ago, held = (db.session.get_one(GpuNow, gpu.id) for gpu in gpus_of(hosts[1])[:3])
    unread.trouble, unread.values, unread.processes = ONE_PIECE[:200], {}, []
    long_ago.seen_at = now - timedelta(days=3)
    held.values = values | {"utilisation": 0, "memory_used": 134_300, "memory_total": 144_384}
    return hosts


def _bookings(now: datetime, people: list[int], busy: list[int]) -> None:
    """The week before on all GPUs, and two from this one on on all but the busy ones; with long purposes."""
    this_week = (now - timedelta(days=now.weekday())).replace(hour=0, minute=0, second=0, microsecond=0)
    filling.pack(this_week - timedelta(days=8), people)  # a day earlier, so that none reaches into what runs
    filling.pack(this_week, people, without=busy)
    filling.pack(this_week + timedelta(days=7), people, without=busy)
    db.session.execute(sa.update(Booking).where(Booking.ends_at <= now).values(settled_at=Booking.ends_at))
    for text, rest in ((WORDS, 0), (ONE_PIECE[:200], 1)):
        db.session.execute(sa.update(Booking).where(Booking.id % 3 == rest).values(note=text))


def _machines(now: datetime, admin: User, student: User, others: list[User], hosts: list[Host]) -> None:
    """The student's, one of them without a template, and everybody's; templates, one of which could not be built."""
    templates = [make_template(hosts[number % HOSTS], f"{MACHINE[:26]}{number}", description=WORDS * 3, ready_at=now)
                 for number in range(8)]  # fmt: skip
    templates[1].state, templates[2].state = TemplateState.FAILED, TemplateState.BUILDING
    operations.progress(operations.enqueue(admin, templates[2], OperationKind.BUILD).id, "desktop", 40)
    seen = {"addresses": [f"2001:db8:1234:5678:9abc:def0:1234:{number:04x}" for number in range(4)], "cpu": 127.5}
    seen |= {"memory": 900 << 30, "disk": 1800 << 30, "started_at": now.timestamp(), "snapshots": []}
    make_instance(student, hosts[0], MACHINE, template_id=templates[0].id, observed=seen)
    for number, host in enumerate(hosts[1:4]):
        failed = InstanceStatus.FAILED if number == 1 else InstanceStatus.STOPPED
        make_instance(student, host, f"{MACHINE[:29]}{number + 3}", status=failed, image="x" * 120)
    for number, other in enumerate(others):
        make_instance(other, hosts[number % HOSTS], f"{MACHINE[:26]}-{number}", observed=seen)


def _of_the_student(now: datetime, student: User, hosts: list[Host]) -> None:
    """Keys, tokens, calendars, waits and a ledger, each of them long."""
    account = student.account_id
    assert account is not None
    for number in range(20):
        title, own = f"{TITLE[:61]}-{number}", {"user_id": student.id}
        secret = {"token_hash": f"{number:064}"}
        key = {"text": f"ssh-ed25519 {'A' * 68}", "fingerprint": f"SHA256:{number:043}"}
        lasts = {"scopes": "read book", "expires_at": now + timedelta(days=90)}
        window = {"seconds": 7200, "starts_at": now + timedelta(days=9), "ends_at": now + timedelta(days=10)}
        wish = {"count": 8, "model": MODEL, "host": HOST, "by_itself": bool(number % 2), "note": ONE_PIECE[:200]}
        db.session.add_all([
            SshKey(name=title, **own, **key),
            ApiToken(name=title, **own, **secret, **lasts),
            Feed(name=title, **own, **secret, host_id=hosts[0].id),
            Wait(**own, **window, **wish),
            LedgerEntry(account_id=account, kind="adjust", amount=3600, key=f"x{number}", actor=ADMIN, note=ONE_PIECE),
        ])  # fmt: skip


def _of_everybody(now: datetime, admin: User, people: list[User], hosts: list[Host]) -> None:
    """A team of all, messages that did not go, shares, and what was done."""
    team = Account(name=TEAM + TEAM_NAME)
    db.session.add(team)
    db.session.flush()
    for number, person in enumerate(people):
        db.session.add(TeamMember(account_id=team.id, user_id=person.id, is_owner=not number, cap_hours=number or None))
        trouble = {"given_up_at": now, "trouble": TROUBLE, "attempts": 9}
        db.session.add(Notice(key=f"x{number}", user_id=person.id, event=Event.ENDED, **trouble))
        done = {"action": "gpu.state", "details": {"reason": TROUBLE, "before": "in_service"}}
        db.session.add(AuditEvent(actor=f"agent:{HOST}", target=f"gpu:{HOST}/0000:01:00.0", **done))
    for number in range(12):
        path = f"/srv/{TITLE}/{'deep-' * 20}{number}"
        db.session.add(SharedDirectory(host_id=hosts[0].id, name=f"{TITLE[:60]}-{number}", source=path, path=path))
    assert admin.role == Role.ADMIN
