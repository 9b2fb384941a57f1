"""What is on the hosts of the scene: machines, templates, directories, and what has gone wrong there."""

from __future__ import annotations

import io
import threading

from PIL import Image

from app import clock, queue
from app.drivers.base import NVIDIA_MAJOR, GiveUp
from app.drivers.fake import FakeLxd
from app.drivers.fake_kernel import FakeKernel
from app.drivers.image_files import ImageFiles
from app.drivers.images import builder_name
from app.drivers.shares import BAD, Found
from app.extensions import db, transaction
from app.models import (
    Backup,
    Gpu,
    GpuState,
    Host,
    Instance,
    Readable,
    Schedule,
    TemplateKind,
    TemplateState,
    User,
)
from app.models.backups import KEPT
from app.services import (
    accounts,
    audit,
    desktops,
    instances,
    inventory,
    readings,
    shares,
    snapshots,
    templates,
)
from app.services.quarantine import quarantine
from app.services.shares import Terms
from app.services.template_rules import Wish
from tests.browser.demo import Demo
from tests.runtime.running import wait_for
from workers.surveyor import Surveyor

SNAPSHOT = "hand-20261103-140000"


def trouble(demo: Demo) -> None:
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


def built(demo: Demo) -> tuple[int, int]:
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


def directories(demo: Demo) -> None:
    """One that is on, and one that the host's agent speaks against."""
    with demo.app.app_context(), transaction():
        host = inventory.host("sim1")
        sets = shares.add("admin", host, Terms("sets", "/srv/sets", "/srv/sets"))
        shares.record(sets.id, (), "agent:sim1")
        shares.switch("admin", host, sets, on=True)
        homes = shares.add("admin", host, Terms("homes", "/unfit/homes", "/srv/home", read_only=False, own=True))
        shares.record(homes.id, (Found(BAD, "flags", "/unfit: nosuid, nodev"),), "agent:sim1")


def surveyed(demo: Demo, user: str) -> None:
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


def read_out(demo: Demo, user: str, admin: str) -> None:
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


def broken_machine(demo: Demo, user: str) -> str:
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
