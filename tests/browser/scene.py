"""A lab in the middle of its week, and every page that can be looked at in it."""

from __future__ import annotations

import io
import threading
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from flask import Flask
from PIL import Image

from app import clock, create_app, queue, serving
from app.drivers.base import NVIDIA_MAJOR, GiveUp
from app.drivers.fake import FakeLxd
from app.drivers.fake_kernel import FakeKernel
from app.drivers.image_files import ImageFiles
from app.drivers.images import builder_name
from app.drivers.shares import BAD, Found
from app.extensions import db, transaction
from app.models import (
    Allocation,
    ApiToken,
    Backup,
    Booking,
    Channel,
    Event,
    Feed,
    Gpu,
    GpuState,
    Host,
    Idling,
    Instance,
    Notice,
    Outcome,
    Readable,
    Reclaim,
    Refusal,
    Role,
    Schedule,
    SshKey,
    TemplateKind,
    TemplateState,
    User,
)
from app.models.backups import KEPT
from app.services import (
    accounts,
    audit,
    channels,
    desktops,
    feeds,
    instances,
    inventory,
    maintenance,
    notices,
    policy,
    readings,
    samples,
    shares,
    snapshots,
    ssh_keys,
    teams,
    templates,
    tokens,
)
from app.services.claims import Ask
from app.services.quarantine import quarantine
from app.services.rules import classes
from app.services.samples import Part
from app.services.series import making
from app.services.series.patterns import WEEK, Pattern
from app.services.series.trial import Wish as Again
from app.services.shares import Terms
from app.services.template_rules import Wish
from app.services.waits import joining
from app.services.waits.joining import Wanted
from app.services.windows import Window
from tests.browser.demo import SLOT, Demo
from tests.browser.looks import Sample
from tests.runtime.running import wait_for
from workers.surveyor import Surveyor

# What a browser may get, but nobody reads.
NO_PAGES = {
    "static", "calendar.live", "short.booking", "bookings.sentence", "health.healthz", "health.metrics",
    "quota.csv_file", "all_machines.csv_file", "ways.rdp", "ways.ssh_config", "feeds.calendar",
    "machines.template_picture", "reports.csv_file", "reports.json_file", "reports.parquet_file",
}  # fmt: skip
PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGCQcJMpJvnZXo768L78WLI0oNDif+furp1W/yB68l/O"
SNAPSHOT = "hand-20261103-140000"


@dataclass
class Scene:
    """Who is there, and what they have."""

    demo: Demo
    user: str
    other: str
    admin: str
    waiting: str
    running: int
    upcoming: int
    ended: int
    stuck: int
    idle: int
    broken: str
    student: int
    team: int
    series: int
    of_series: int
    template: int
    broken_template: int
    waits: int

    def samples(self) -> list[Sample]:
        """Every page, with the people who may see it."""
        with self.demo.app.app_context(), transaction():
            still = db.update(Idling).where(Idling.booking_id == self.idle)  # the postman may have judged since
            db.session.execute(still.values(outcome=Outcome.OPEN, closed_at=None))
            token = db.session.scalars(db.select(ApiToken.id)).first()
            key = db.session.scalars(db.select(SshKey.id)).first()
            channel = db.session.scalars(db.select(Channel.id)).first()
            feed = db.session.scalars(db.select(Feed.id)).first()
            refusal = db.session.scalars(db.select(Refusal.id)).first()
            gpu = db.session.scalars(db.select(Gpu.id).order_by(Gpu.id)).first()
            held_back = db.session.scalars(db.select(Gpu.id).where(Gpu.state == GpuState.QUARANTINE)).first()
            gpus = db.session.scalars(db.select(Gpu.id).join(Host).where(Host.name == "sim1")).all()
            own = db.select(Booking.id).join(User).where(User.username == self.user).order_by(Booking.starts_at)
            measured = db.session.scalars(own).first()
            chosen = db.session.scalars(
                db.select(Allocation.gpu_id).where(Allocation.booking_id == self.upcoming)
            ).first()
        tomorrow, quiet = (self.demo.at(day, 12).date().isoformat() for day in (1, 7))
        weekly = f"repeat=workdays&start_date={tomorrow}&until={self.demo.at(9, 12).date().isoformat()}"
        every = "".join(f"&gpu={number}" for number in gpus)
        work = f"start_date={tomorrow}&start_time=12:00&end_date={quiet}&end_time=12:00&reason=New+fans{every}"
        fewer = f"start_date={tomorrow}&start_time=20:00&end_date={self.demo.at(2, 12).date()}&end_time=06:00"
        mine = [
            ("home", "/"),
            ("calendar", "/calendar"),
            ("calendar-list", "/calendar?view=list"),
            ("calendar-open", "/calendar?open=sim1&open=sim2"),
            ("calendar-day", f"/calendar?day={tomorrow}"),
            ("calendar-month", "/calendar?month=now&open=sim1"),
            ("find", "/find"),
            ("find-found", f"/find?find=1&count=3&hours=6&near_date={tomorrow}&near_time=20:00"),
            ("find-wrong", "/find?find=1&count=0&hours=x"),
            ("help", "/help"),
            ("book", "/bookings/new"),
            ("book-checked", f"/bookings/new?check=1&count=2&start_date={quiet}&start_time=20:00&end_time=08:00"),
            ("book-not-free", f"/bookings/new?check=1&count=4&start_date={tomorrow}&start_time=21:00&end_time=23:00"),
            ("book-wrong", f"/bookings/new?check=1&count=0&start_date={tomorrow}&start_time=25&end_time=x"),
            ("bookings", "/bookings"),
            ("booking-running", f"/bookings/{self.running}"),
            ("booking-change", f"/bookings/{self.running}/change"),
            ("booking-change-upcoming", f"/bookings/{self.upcoming}/change"),
            ("booking-change-asked", f"/bookings/{self.upcoming}/change?{fewer}&count=1&gpu={chosen}"),
            ("booking-end", f"/bookings/{self.running}/end"),
            ("booking-upcoming", f"/bookings/{self.upcoming}"),
            ("booking-cancel", f"/bookings/{self.upcoming}/cancel"),
            ("booking-ended", f"/bookings/{self.ended}"),
            ("waits", "/waits"),
            ("waits-join", f"/waits/new?count=2&hours=6&model=NVIDIA+RTX+A6000&host=sim1&gpu={gpus[0]}&gpu={gpus[1]}"),
            ("waits-leave", f"/waits/{self.waits}/leave"),
            ("booking-refused", f"/bookings/refused/{refusal}"),
            ("book-series", f"/bookings/new?check=1&count=1&{weekly}&start_time=12:00&end_time=13:00"),
            ("book-series-not-all", f"/bookings/new?check=1&count=3&{weekly}&start_time=20:00&end_time=08:00"),
            ("book-series-wrong", f"/bookings/new?check=1&count=1&start_date={quiet}&end_time=9&until={tomorrow}"),
            ("series", f"/bookings/series/{self.series}"),
            ("booking-of-series", f"/bookings/{self.of_series}"),
            ("later-cancel", f"/bookings/{self.of_series}/later/cancel"),
            ("later-change", f"/bookings/{self.of_series}/later/change"),
            ("later-change-checked", f"/bookings/{self.of_series}/later/change?start_time=6&end_time=8"),
            ("live", "/live?open=sim1&open=sim2"),
            ("live-machine", f"/live/machines/{self.user}"),
            ("live-booking", f"/live/bookings/{self.running}"),
            ("machines", "/machines"),
            ("machine", f"/machines/{self.user}"),
            ("machine-broken", f"/machines/{self.broken}"),
            ("machine-terminal", f"/machines/{self.user}/terminal"),
            ("machine-new", "/machines/new"),
            ("machine-ways", f"/machines/{self.user}/ways"),
            ("machine-health", f"/machines/{self.user}/health"),
            ("machine-stop", f"/machines/{self.user}/stop"),
            ("machine-delete", f"/machines/{self.user}/delete"),
            ("machine-care", f"/machines/{self.user}/care"),
            ("machine-rename", f"/machines/{self.user}/rename"),
            ("machine-move", f"/machines/{self.broken}/move"),
            ("machine-move-booked", f"/machines/{self.user}/move"),
            ("machine-rebuild", f"/machines/{self.user}/rebuild"),
            ("machine-snapshots", f"/machines/{self.user}/snapshots"),
            ("machine-backup", f"/machines/{self.user}/backup"),
            ("machine-restore", f"/machines/{self.user}/snapshots/{SNAPSHOT}/restore"),
            ("quota", "/quota"),
            ("usage", "/reports"),
            ("usage-booking", f"/bookings/{measured}/usage"),
            ("teams", "/teams"),
            ("team", f"/teams/{self.team}"),
            ("team-remove", f"/teams/{self.team}/members/{self.other}/remove"),
            ("settings", "/settings"),
            ("keys", "/settings/keys"),
            ("key-remove", f"/settings/keys/{key}/remove"),
            ("settings-revoke", f"/settings/tokens/{token}/revoke"),
            ("notices", "/settings/notices"),
            ("notices-remove", f"/settings/notices/services/{channel}/remove"),
            ("calendars", "/settings/calendars"),
            ("calendars-withdraw", f"/settings/calendars/{feed}/withdraw"),
            ("not-found", "/no/such/page"),
            ("not-allowed", "/hosts"),
        ]
        theirs = [
            ("admin-home", "/"),
            ("admin-live", "/live"),
            ("admin-booking-stuck", f"/bookings/{self.stuck}"),
            ("admin-machine-new", "/machines/new"),
            ("admin-booking-idle", f"/bookings/{self.idle}"),
            ("people", "/people"),
            ("people-several", f"/people/approve/several?who={self.waiting}"),
            ("person", f"/people/{self.user}"),
            ("person-waiting", f"/people/{self.waiting}"),
            ("person-refuse", f"/people/{self.waiting}/refuse"),
            ("person-suspend", f"/people/{self.user}/suspend"),
            ("person-password", f"/people/{self.user}/password"),
            ("person-role", f"/people/{self.user}/role/admin"),
            ("hosts", "/hosts"),
            ("host", "/hosts/sim1"),
            ("host-in-trouble", "/hosts/sim2"),
            ("host-desktop", "/hosts/sim1/desktop"),
            ("host-gpu-out", f"/hosts/sim1/gpus/{gpu}/out"),
            ("host-gpu-release", f"/hosts/sim2/gpus/{held_back}/release"),
            ("templates", "/templates"),
            ("template", f"/templates/{self.template}"),
            ("template-broken", f"/templates/{self.broken_template}"),
            ("template-amend", f"/templates/{self.broken_template}/amend"),
            ("template-retire", f"/templates/{self.template}/retire"),
            ("template-by-recipe", "/templates/new/recipe"),
            ("template-from-image", "/templates/new/image"),
            ("template-from-file", "/templates/new/file"),
            ("template-from-machine", "/templates/new/machine"),
            ("shares", "/hosts/sim1/shares"),
            ("share-new", "/hosts/sim1/shares/new"),
            ("share", "/hosts/sim1/shares/sets"),
            ("share-retire", "/hosts/sim1/shares/sets/retire"),
            ("all-machines", "/admin/machines"),
            ("all-machines-one", f"/admin/machines/sim1/{self.user}"),
            ("all-machines-foreign", "/admin/machines/sim2/by-hand"),
            ("reports", "/reports"),
            ("reports-team", f"/reports?of=team-{self.team}&group=day"),
            ("reports-wrong", "/reports?period=custom&from=2026-11-02&to=2026-11-01"),
            ("reports-empty", "/reports?period=last-month"),
            ("rules", "/rules"),
            ("rules-idle", "/rules/idle"),
            ("classes", "/rules/classes"),
            ("class", f"/rules/classes/{self.student}"),
            ("class-wrong", f"/rules/classes/{self.student}/try?max_hours=x&hours_week=200"),
            ("class-try", f"/rules/classes/{self.student}/try?recent=1&max_hours=3&max_gpus=1"),
            ("class-remove", f"/rules/classes/{self.student}/remove"),
            ("audit", "/audit"),
            ("waits-everybody", "/waits/everybody"),
            ("admin-notices", "/settings/notices"),
            ("messages", "/messages"),
            ("maintenance", "/hosts/sim2/maintenance"),
            ("maintenance-plan", f"/hosts/sim1/maintenance?{work}"),
        ]
        signed_out = [("sign-in", "/login"), ("register", "/register")]
        return [
            *(Sample("", path, name) for name, path in signed_out),
            *(Sample(self.user, path, name) for name, path in mine),
            *(Sample(self.admin, path, name) for name, path in theirs),
        ]

    def missing(self) -> set[str]:
        """Endpoints with a page that no sample shows."""
        portal = _portal(self.demo)
        adapter = portal.url_map.bind("127.0.0.1")
        shown = set()
        for sample in self.samples():
            if sample.name != "not-found":
                shown.add(adapter.match(sample.path.partition("?")[0], method="GET")[0])
        pages = {
            rule.endpoint
            for rule in portal.url_map.iter_rules()
            if "GET" in rule.methods and "api." not in rule.endpoint
        }
        return pages - shown - NO_PAGES


def make(demo: Demo) -> Scene:
    """Fill a Berth that nobody has used yet."""
    user = demo.person("Li Wei", machine_on="sim1")
    other = demo.person("Chen Yu", machine_on="sim2", hours=400)
    stranger = demo.person("Zhao Min")
    admin = demo.person("Sun Li", admin=True)
    waiting = demo.waiting("Zhang San")
    demo.waiting("María-José Carreño Quiñones")
    ended = demo.book(user, hours=1, note="warm-up")
    demo.attached(ended)
    demo.clear()
    running = demo.book(user, hours=5, note="Fine-tuning, run 12")
    idle = demo.book(other, hours=9, count=2)
    demo.attached(idle)
    demo.attached(running)
    stuck = demo.book(stranger, hours=3)
    upcoming = demo.book(user, hours=12, count=2, start=demo.at(1, 20))
    demo.book(
        other, hours=12, count=3, start=demo.at(1, 18), host="sim1" if _host_of(demo, upcoming) == "sim2" else "sim2"
    )
    for day in range(2, 6):
        demo.book(other, hours=10 + day, count=1 + day % 3, start=demo.at(day, 8 + day), note="Nightly")
        demo.book(user, hours=2 * day, count=1, start=demo.at(day, 3 * day))
    demo.refuse(user, hours=60)
    _token_and_maintenance(demo, user)
    with demo.app.app_context(), transaction():
        ssh_keys.add(user, accounts.get(user), PUBLIC_KEY, "desk")
    _trouble(demo)
    _shares(demo)
    broken = _broken_machine(demo, user)
    series = _series(demo, user)
    student = _students(demo, user)
    team = _team(demo, user, other)
    made = _templates(demo)
    _surveyed(demo, user)
    _read(demo, user, admin)
    _told(demo, user, admin)
    _measured(demo, [user, other, stranger])
    made = (*series, *made, _waits(demo, user))
    _idle(demo, idle, ended)
    return Scene(demo, user, other, admin, waiting, running, upcoming, ended, stuck, idle, broken, student, team, *made)


def unmake(demo: Demo) -> None:
    """Leave it to the next test with all GPUs free and in service."""
    demo.clear()
    fake = FakeLxd(demo.berth.data / "sim" / "sim2.json")
    fake.detach("by-hand", "mygpu")
    fake.stop("by-hand", force=True)  # and all that runs in it
    with demo.app.app_context(), transaction():
        for gpu in db.session.scalars(db.select(Gpu).where(Gpu.state != GpuState.IN_SERVICE)):
            inventory.set_gpu_state("admin", gpu, GpuState.IN_SERVICE)
    with demo.app.app_context(), transaction():
        policy.current().reclaim = Reclaim.OFF
        for template in templates.every():
            templates.retire(None, template)
        admin = db.session.scalars(db.select(User).where(User.role == Role.ADMIN)).first()
        assert admin is not None
        for found, _count in classes.all_with_counts():
            if not found.is_default:
                classes.delete(admin, found.id)


def _portal(demo: Demo) -> Flask:
    return create_app(demo.app.extensions["berth"])


def _host_of(demo: Demo, booking_id: int) -> str:
    with demo.app.app_context():
        query = db.select(Host.name).join(Booking, Booking.host_id == Host.id).where(Booking.id == booking_id)
        return db.session.scalars(query).one()


def _token_and_maintenance(demo: Demo, user: str) -> None:
    with demo.app.app_context(), transaction():
        tokens.create(accounts.get(user), "laptop")
        gpu = db.session.scalars(db.select(Gpu).order_by(Gpu.id.desc())).first()
        assert gpu is not None
        inventory.set_gpu_state("admin", gpu, GpuState.MAINTENANCE)


def _trouble(demo: Demo) -> None:
    """A GPU that somebody plugged in by hand, and that is not let go of there, so that it is in quarantine."""
    path = demo.berth.data / "sim" / "sim2.json"
    fake = FakeLxd(path)
    fake.add_instance("by-hand")
    with demo.app.app_context():
        with transaction():
            in_service = db.select(Gpu).join(Host).where(Host.name == "sim2", Gpu.state == GpuState.IN_SERVICE)
            gpu = db.session.scalars(in_service.order_by(Gpu.id.desc())).first()
            assert gpu is not None
            FakeKernel(path).add_process("by-hand", (NVIDIA_MAJOR, gpu.minor), stubborn=True, immortal=True)
            fake.plug("by-hand", "mygpu", gpu.pci_address)
            quarantine("agent:sim2", gpu, "train in by-hand does not let go of it")
        queue.wake("sim2")


def _templates(demo: Demo) -> tuple[int, int]:
    """One that is ready, and one that could not be built."""
    wishes = (
        Wish("desktop", TemplateKind.RECIPE, "desktop", "Xfce, for everyday work"),
        Wish("ml", TemplateKind.RECIPE, "base", mirror="http://mirror.example.org/debian", packages=("git", "pytorch")),
    )
    numbers = []
    for wish in wishes:
        with demo.app.app_context():
            with transaction():
                operation = templates.request_build(None, inventory.host("sim1"), wish)
                numbers.append(operation.template_id)
            if wish.packages:
                said = "Reading package lists...\nE: Unable to locate package pytorch\n"
                FakeLxd(demo.berth.data / "sim" / "sim1.json").answer(builder_name(numbers[-1]), 100, said)
            queue.wake("sim1")

    def over() -> bool:
        with demo.app.app_context():
            return not any(template.state == TemplateState.BUILDING for template in templates.every())

    wait_for(over, 60, "templates that are built or not")
    with demo.app.app_context(), transaction():
        drawn = io.BytesIO()
        Image.linear_gradient("L").convert("RGB").save(drawn, "PNG")
        ready = templates.get(numbers[0])
        templates.change(
            None, ready, description=ready.description, for_everyone=True, users=(), picture=drawn.getvalue()
        )
    shelf = ImageFiles(demo.berth.data / "images")
    shelf.names()  # makes the directory
    for name in ("noble.tar.xz", "rocky-9.tar.gz"):
        (shelf.directory / name).touch()
    return numbers[0], numbers[1]


def _students(demo: Demo, user: str) -> int:
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


def _team(demo: Demo, owner: str, member: str) -> int:
    """Two who share an account, one of them with a limit; named anew each time, since teams stay."""
    with demo.app.app_context(), transaction():
        admin = db.session.scalars(db.select(User).where(User.role == Role.ADMIN)).first()
        assert admin is not None
        account = teams.create(admin, f"Vision {owner}", owner, 300)
        teams.add(admin, account, member)
        teams.limit(admin, account, member, 40, owner=False)
        return account.id


def _series(demo: Demo, user: str) -> tuple[int, int]:
    """Three mornings that were booked together, and the second of them."""
    with demo.app.app_context(), transaction():
        first = demo.at(8, 12).date()
        pattern = Pattern(WEEK, 6 * 3600, 7 * 3600, "Asia/Shanghai", first, first + timedelta(days=2))
        wish = Again(pattern, Ask(ends_at=clock.now(), count=1, note="Every morning"))
        made = making.create(accounts.get(user), wish, SLOT)
        return made.series.id, made.bookings[1].id


def _shares(demo: Demo) -> None:
    """One that is on, and one that the host's agent speaks against."""
    with demo.app.app_context(), transaction():
        host = inventory.host("sim1")
        sets = shares.add("admin", host, Terms("sets", "/srv/sets", "/srv/sets"))
        shares.record(sets.id, (), "agent:sim1")
        shares.switch("admin", host, sets, on=True)
        homes = shares.add("admin", host, Terms("homes", "/unfit/homes", "/srv/home", read_only=False, own=True))
        shares.record(homes.id, (Found(BAD, "flags", "/unfit: nosuid, nodev"),), "agent:sim1")


def _surveyed(demo: Demo, user: str) -> None:
    """What the machines use, a snapshot, a backup and the desktop of sim1, without waiting for the next slow look."""
    with demo.app.app_context(), transaction():
        machine = instances.get(None, user)
        ready = {"size": 3 << 30, "ready_at": clock.now(), "expires_at": clock.now() + KEPT}
        db.session.add(Backup(instance_id=machine.id, host_id=machine.host_id, **ready))
        desktops.offer("admin", inventory.host("sim1"), 3389)
    FakeLxd(demo.berth.data / "sim" / "sim1.json").serve_desktop(3389)
    FakeLxd(demo.berth.data / "sim" / "sim1.json").snapshot(user, SNAPSHOT)
    for name in ("sim1", "sim2"):
        Surveyor(demo.app, name, FakeLxd(demo.berth.data / "sim" / f"{name}.json"), threading.Event()).step()


def _read(demo: Demo, user: str, admin: str) -> None:
    """A log that an admin had read out, and what was set at the command line, which the machine's owner is told of."""
    with demo.app.app_context():
        with transaction():
            readings.ask(accounts.get(admin), inventory.host("sim1"), user, Readable.CONSOLE)
            for keep in (3, 4):
                snapshots.set_schedule(User(username=audit.CLI), instances.get(None, user), Schedule.NEVER, keep)
        queue.wake("sim1")

    def read() -> bool:
        with demo.app.app_context():
            return all(one.answered_at for one in readings.of_instance(inventory.host("sim1"), user))

    wait_for(read, 60, "the agent to read")


def _told(demo: Demo, user: str, admin: str) -> None:
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


def _measured(demo: Demo, people: list[str]) -> None:
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


def _waits(demo: Demo, user: str) -> int:
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


def _idle(demo: Demo, warned: int, ended: int) -> None:
    """GPUs that did nothing: some that are given back soon, and some that would have been."""
    hour, now = timedelta(hours=1), clock.now()
    with demo.app.app_context(), transaction():
        policy.current().reclaim = Reclaim.ON
        told = {"since": now - hour, "held": True, "told_at": now, "due_at": now + hour / 4}
        before = {name: moment - 30 * hour for name, moment in told.items() if name != "held"}
        closed = {"closed_at": now - 29 * hour, "outcome": Outcome.WOULD, "seconds": 6 * 3600}
        db.session.add(Idling(booking_id=warned, trial=False, **told))
        db.session.add(Idling(booking_id=ended, trial=True, held=False, absent=True, **before, **closed))


def _broken_machine(demo: Demo, user: str) -> str:
    """One that its host could not make."""
    name = f"{user}-2"
    fake = FakeLxd(demo.berth.data / "sim" / "sim2.json")
    fake.fail_next("create", GiveUp("Copy the image", "no space left on device", "Make room in the storage pool."))
    with demo.app.app_context():
        with transaction():
            owner, host = accounts.get(user), inventory.host("sim2")
            size = {"cpus": 2, "memory_gib": 8, "disk_gib": 40}
            instances.request_create(owner, owner, name=name, host=host, image="base", **size)
        queue.wake("sim2")

    def failed() -> bool:
        with demo.app.app_context():
            return db.session.scalar(db.select(Instance.status).where(Instance.name == name)) == "failed"

    wait_for(failed, 60, "a creation that fails")
    return name
