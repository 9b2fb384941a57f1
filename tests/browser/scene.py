"""A lab in the middle of its week, and every page that can be looked at in it."""

from __future__ import annotations

from dataclasses import dataclass

from flask import Flask

from app import create_app
from app.drivers.fake import FakeLxd
from app.extensions import db, transaction
from app.models import (
    Allocation,
    ApiToken,
    Booking,
    Channel,
    Feed,
    Gpu,
    GpuState,
    Host,
    Idling,
    Outcome,
    Reclaim,
    Refusal,
    Role,
    SshKey,
    User,
)
from app.services import (
    accounts,
    inventory,
    policy,
    ssh_keys,
    templates,
)
from app.services.rules import classes
from tests.browser import scene_hosts, scene_people
from tests.browser.demo import Demo
from tests.browser.looks import Sample
from tests.browser.scene_hosts import SNAPSHOT

# What a browser may get, but nobody reads.
NO_PAGES = {
    "static", "calendar.live", "short.booking", "bookings.sentence", "health.healthz", "health.metrics",
    "quota.csv_file", "all_machines.csv_file", "ways.rdp", "ways.ssh_config", "feeds.calendar",
    "machines.template_picture", "reports.csv_file", "reports.json_file", "reports.parquet_file",
}  # fmt: skip
PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGCQcJMpJvnZXo768L78WLI0oNDif+furp1W/yB68l/O"


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
            ("host-remove", "/hosts/sim2/remove"),
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
    scene_people.token_and_maintenance(demo, user)
    with demo.app.app_context(), transaction():
        ssh_keys.add(user, accounts.get(user), PUBLIC_KEY, "desk")
    scene_hosts.trouble(demo)
    scene_hosts.directories(demo)
    broken = scene_hosts.broken_machine(demo, user)
    series = scene_people.mornings(demo, user)
    student = scene_people.students(demo, user)
    team = scene_people.team(demo, user, other)
    made = scene_hosts.built(demo)
    scene_hosts.surveyed(demo, user)
    scene_hosts.read_out(demo, user, admin)
    scene_people.told(demo, user, admin)
    scene_people.measured(demo, [user, other, stranger])
    made = (*series, *made, scene_people.waiting_list(demo, user))
    scene_people.idling(demo, idle, ended)
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
