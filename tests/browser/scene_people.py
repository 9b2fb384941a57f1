"""What people of the scene have and were told: classes, teams, series, waits, messages, and weeks that are over."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from app import clock, serving
from app.extensions import db, transaction
from app.models import (
    Allocation,
    Booking,
    Event,
    Gpu,
    GpuState,
    Host,
    Idling,
    Notice,
    Outcome,
    Reclaim,
    Role,
    User,
)
from app.services import (
    accounts,
    channels,
    feeds,
    inventory,
    maintenance,
    notices,
    policy,
    samples,
    teams,
    tokens,
)
from app.services.claims import Ask
from app.services.rules import classes
from app.services.samples import Part
from app.services.series import making
from app.services.series.patterns import WEEK, Pattern
from app.services.series.trial import Wish as Again
from app.services.waits import joining
from app.services.waits.joining import Wanted
from app.services.windows import Window
from tests.browser.demo import SLOT, Demo


def token_and_maintenance(demo: Demo, user: str) -> None:
    with demo.app.app_context(), transaction():
        tokens.create(accounts.get(user), "laptop")
        gpu = db.session.scalars(db.select(Gpu).order_by(Gpu.id.desc())).first()
        assert gpu is not None
        inventory.set_gpu_state("admin", gpu, GpuState.MAINTENANCE)


def students(demo: Demo, user: str) -> int:
    """A class with rules of its own, and somebody of it."""
    with demo.app.app_context(), transaction():
        admin = db.session.scalars(db.select(User).where(User.role == Role.ADMIN)).first()
        assert admin is not None
        found = classes.create(admin, "Student")
        rules = {
            "hours_week": 200,
            "gpus_at_once": 6,
            "far_days": 14,
            "far_hours": 20,
            "late_hours": 2,
            "late_percent": 50,
        }
        classes.change(admin, found.id, rules)
        classes.assign(admin, accounts.account_of(user), found.id)
        return found.id


def team(demo: Demo, owner: str, member: str) -> int:
    """Two who share an account, one of them with a limit; named anew each time, since teams stay."""
    with demo.app.app_context(), transaction():
        admin = db.session.scalars(db.select(User).where(User.role == Role.ADMIN)).first()
        assert admin is not None
        account = teams.create(admin, f"Vision {owner}", owner, 300)
        teams.add(admin, account, member)
        teams.limit(admin, account, member, 40, owner=False)
        return account.id


def mornings(demo: Demo, user: str) -> tuple[int, int]:
    """Three mornings that were booked together, and the second of them."""
    with demo.app.app_context(), transaction():
        first = demo.at(8, 12).date()
        pattern = Pattern(WEEK, 6 * 3600, 7 * 3600, "Asia/Shanghai", first, first + timedelta(days=2))
        wish = Again(pattern, Ask(ends_at=clock.now(), count=1, note="Every morning"))
        made = making.create(accounts.get(user), wish, SLOT)
        return made.series.id, made.bookings[1].id


def told(demo: Demo, user: str, admin: str) -> None:
    """A service, a message that could not be sent, a calendar's address, and GPUs that are to be worked on."""
    with demo.app.app_context(), transaction():
        person, now = accounts.get(user), clock.now()
        # Nothing goes there: it is no public address.
        channels.add(person, "Lab chat", "jsons://127.0.0.1:9/x", allowed=("jsons",), secret_key="x")
        notices.post(person, notices.Telling(Event.MOVED, "event:0", {}), None)
        db.session.execute(db.update(Notice).values(given_up_at=now, trouble="smtp_550"))
        feeds.create(person, "phone", None, "en")
        host, start = inventory.host("sim2"), demo.at(20, 8)
        gpus = [gpu for gpu, _host in inventory.gpus(host.id)]
        window = Window(start, start + timedelta(hours=4))
        maintenance.schedule(accounts.get(admin), host, gpus[:2], window, "New fans", maintenance.fingerprint([]))


def measured(demo: Demo, people: list[str]) -> None:
    """Five weeks that are over, and what the GPUs did in them: busy, idle, and at times not looked at."""
    with demo.app.app_context(), transaction():
        users = [accounts.get(name) for name in people]
        db.session.execute(db.update(Host).values(created_at=demo.at(-40, 0)))
        today = demo.at(0, 0)
        for number, (gpu, host) in enumerate(inventory.gpus()):
            parts: list[Part] = []
            for day in range(-36, 0):
                start = today + timedelta(days=day, hours=9 + (day + number) % 5)
                user, length = users[(day + number) % 3], 3 + (day * 7 + number * 5) % 12
                if (day + number) % 4 and gpu.state == GpuState.IN_SERVICE:
                    parts += _day_of(user, gpu, host, start, length)
            samples.deliver(host.id, f"scene {gpu.id} {people[0]}", parts)


def _day_of(user: User, gpu: Gpu, host: Host, start: datetime, hours: int) -> list[Part]:
    """A booking that was; its GPU came after twenty minutes, by its owner's doing or Berth's, and each of its hours."""
    end = start + timedelta(hours=hours)
    window = {"starts_at": start, "ends_at": end}
    owner = {"user_id": user.id, "account_id": user.account_id, "host_id": host.id}
    booking = Booking(**owner, **window, booked_until=end, settled_at=end)
    db.session.add(booking)
    db.session.flush()
    moments = {"attached_at": start + timedelta(minutes=20), "detached_at": end}
    moments |= {"ready_at": start} if start.day % 2 else {}
    db.session.add(Allocation(booking_id=booking.id, gpu_id=gpu.id, **window, **moments))
    db.session.flush()
    hour = 3_600_000
    return [
        Part(gpu.pci_address, start + timedelta(hours=at), booking.id, user.username, sampled, sampled * busy // 10,
             sampled // 10, 4096 * busy, 60)
        for at in range(hours)
        for sampled in [0 if start.day == 12 else hour * 2 // 3 if at == 0 else hour]
        for busy in [max(0, 9 - (at * 2 + start.day) % 11)]
    ]  # fmt: skip


def waiting_list(demo: Demo, user: str) -> int:
    """Three places on the waiting list, two of them for a time at which there is maintenance; an offer; and one that
    was left. The number of the first."""
    with demo.app.app_context():
        with transaction():
            person, kept = accounts.get(user), [gpu.id for gpu, _host in inventory.gpus(inventory.host("sim2").id)][:2]
            work = Ask(starts_at=demo.at(20, 9), ends_at=demo.at(20, 11), gpu_ids=tuple(kept), note="Ablation")
            first = joining.join(person, Wanted(work), SLOT)
            joining.join(person, Wanted(replace(work, ends_at=demo.at(20, 12)), 7200), SLOT)
            joining.join(person, Wanted(Ask(starts_at=demo.at(1, 21), ends_at=demo.at(1, 23), count=4)), SLOT)
            joining.leave(person, joining.join(person, Wanted(replace(work, note="")), SLOT).id)
            offer = Ask(starts_at=demo.at(9, 9), ends_at=demo.at(9, 12), host="sim1")
            joining.join(person, Wanted(offer, by_itself=False), SLOT)
        serving.tend()
        return first.id


def idling(demo: Demo, warned: int, ended: int) -> None:
    """GPUs that did nothing: some that are given back soon, and some that would have been."""
    hour, now = timedelta(hours=1), clock.now()
    with demo.app.app_context(), transaction():
        policy.current().reclaim = Reclaim.ON
        told = {"since": now - hour, "held": True, "told_at": now, "due_at": now + hour / 4}
        before = {name: moment - 30 * hour for name, moment in told.items() if name != "held"}
        closed = {"closed_at": now - 29 * hour, "outcome": Outcome.WOULD, "seconds": 6 * 3600}
        db.session.add(Idling(booking_id=warned, trial=False, **told))
        db.session.add(Idling(booking_id=ended, trial=True, held=False, absent=True, **before, **closed))
