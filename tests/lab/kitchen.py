"""A host on which templates are built by a Berth that runs, and machines made from them."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

from app.drivers.doors import Door
from app.drivers.knocking import knock_here
from app.extensions import db, transaction
from app.models import Instance, Operation, OperationState, Template, TemplateKind
from app.services import builds, instances, operations, ports, templates
from app.services.template_rules import Wish
from tests.factories import make_user
from tests.lab.image import CACHE
from tests.lab.lab import Lab
from tests.lab.scene import Scene
from tests.runtime.running import wait_for

FIRST = 20000 + os.getpid() % 100 * 20  # two runs on one machine must not meet, nor whoever asks for any free port
SIZE = {"cpus": 2, "memory_gib": 2, "disk_gib": 4}
DESKTOP = CACHE / "desktop-template.tar"  # the image of the last one that was built here


class Kitchen:
    """What is done here goes through Berth's own services and agent; what is seen comes from LXD."""

    def __init__(self, berth: Scene, host: Lab) -> None:
        self.berth, self.host = berth, host
        with berth.app.app_context(), transaction():
            row = berth.row(host)
            row.address, row.listen, row.first_port, row.last_port = "127.0.0.1", "127.0.0.1", FIRST, FIRST + 19

    def ask(self, name: str, kind: TemplateKind, source: str, **values: Any) -> int:
        """Ask for a template; its number."""
        with self.berth.app.app_context(), transaction():
            number = templates.request_build(
                None, self.berth.row(self.host), Wish(name, kind, source, **values)
            ).template_id
        self.berth.wake(self.host)
        assert number is not None
        return number

    def again(self, number: int) -> None:
        with self.berth.app.app_context(), transaction():
            templates.retry(None, templates.get(number))
        self.berth.wake(self.host)

    def amend(self, number: int, wish: Wish) -> None:
        """Build what failed again, from other settings."""
        with self.berth.app.app_context(), transaction():
            templates.amend(None, templates.get(number), wish)
        self.berth.wake(self.host)

    def retire(self, number: int) -> None:
        with self.berth.app.app_context(), transaction():
            templates.retire(None, templates.get(number))
        self.berth.wake(self.host)

    def cancel(self, number: int) -> None:
        with self.berth.app.app_context(), transaction():
            builds.cancel(None, templates.get(number))

    def going(self) -> int:
        """How much background work of LXD's is under way."""
        found = json.loads(self.host.lxc("query", "/1.0/operations"))
        return len(found.get("running", []))

    def over(self, number: int, seconds: float = 180) -> tuple[Template, Operation]:
        """The template and its operation, when that is over."""

        def done() -> Operation | None:
            operation = self.berth.ask(lambda: operations.last_of_template(number))
            return operation if operation and operation.state not in operations.OPEN else None

        try:
            operation = wait_for(done, seconds, f"template {number}")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self._about_wait(number)}") from error
        return self.berth.ask(lambda: templates.get(number)), operation

    def ready(self, number: int, seconds: float = 180) -> Template:
        """Wait until it is built. Where LXD aborts meanwhile it is asked for again, as Berth's words advise."""
        template, operation = self.over(number, seconds)
        if self.aborted(operation):
            self.again(number)
            template, operation = self.over(number, seconds)
        assert operation.state == OperationState.DONE, self.about(operation)
        return template

    def aborted(self, operation: Operation) -> bool:
        """Whether it failed because LXD aborted, which has been started again."""
        gone = operation.state != OperationState.DONE and "LXD went away" in operation.error
        return gone and self.host.revived()

    def keep(self, template: Template, path: Path) -> None:
        """Its image as a file: another suite has the template without the minutes to build it."""
        found = json.loads(self.host.lxc("query", f"/1.0/images/aliases/{template.image}"))
        fresh = path.with_suffix(".new")
        shutil.copyfile(self.host.lxd_dir / "images" / found["target"], fresh)
        fresh.rename(path)

    def _about_wait(self, number: int) -> str:
        """How far Berth and LXD are with what does not end."""

        def find() -> str:
            query = db.select(Operation).where(Operation.template_id == number).order_by(Operation.id)
            return "\n".join(
                f"{one.kind} {one.state} {one.step} {one.percent} % {one.log[-500:]}"
                for one in db.session.scalars(query)
            )

        going = self.host.lxc("query", "/1.0/operations?recursion=1", check=False)
        return f"{self.berth.ask(find)}\n{going}\nLXD: {self.host.said()}"

    def about(self, operation: Operation) -> str:
        """Why it failed, as Berth and LXD say."""
        return f"{operation.error}\n{operation.log[-3000:]}\nLXD: {self.host.said()}"

    def machine(self, number: int, name: str = "") -> str:
        """Somebody new with a machine of a template; its name."""
        name = name or self.host.unique()
        with self.berth.app.app_context(), transaction():
            row, template = self.berth.row(self.host), templates.get(number)
            instances.request_create(None, make_user(name), name=name, host=row, template=template, **SIZE)
            self.berth.machines.append((self.host, name))
        self.berth.wake(self.host)
        return name

    def answers(self, name: str, purpose: str, seconds: float) -> float:
        """Wait until something answers behind the port of a machine; how long that took."""
        began = time.monotonic()
        try:
            wait_for(lambda: self._greets(name, purpose), seconds, f"{purpose} of {name} answers")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self._about(name)}") from error
        return time.monotonic() - began

    def _about(self, name: str) -> str:
        """What stands in the way of a machine, as Berth and LXD know it."""

        def find() -> str:
            machine = db.session.scalars(db.select(Instance).where(Instance.name == name)).first()
            if machine is None:
                return "Berth has no such machine"
            query = db.select(Operation.kind, Operation.state, Operation.step, Operation.error)
            done = db.session.execute(query.where(Operation.instance_id == machine.id).order_by(Operation.id)).all()
            return f"{machine.status} {machine.health} {[tuple(one) for one in done]}"

        services = self.host.run(name, "systemctl", "--failed", "--no-pager")
        return f"{self.berth.ask(find)}\n{self.host.lxc('list', name, check=False)}\n{services}"

    def left(self) -> set[str]:
        """Builders, trials and images of templates, images without a name, and what is kept of files meanwhile."""
        names = {item["name"] for item in json.loads(self.host.lxc("list", "--format", "json"))}
        images = json.loads(self.host.lxc("image", "list", "--format", "json"))
        aliases = {alias["name"] for image in images for alias in image["aliases"]}
        nameless = {f"image {image['fingerprint'][:12]}" for image in images if not image["aliases"]}
        halves = {path.name for path in self.shelf.glob(".*")}
        return {name for name in names | aliases if name.startswith("berth-")} | nameless | halves

    @property
    def shelf(self) -> Path:
        """Where the agent looks for files of images."""
        return self.berth.berth.data / "images"

    def port(self, name: str, purpose: str) -> int:
        def find() -> int:
            machine = db.session.scalars(db.select(Instance).where(Instance.name == name)).one()
            found = {str(key): port.number for key, port in ports.of_machine(machine.id).items()}
            return found.get(purpose, 0)

        return int(self.berth.ask(find) or 0)

    def _greets(self, name: str, purpose: str) -> bool:
        """Whether sshd says hello, or xrdp takes up the connection."""
        number = self.port(name, purpose)
        return bool(number) and knock_here(Door(purpose, "127.0.0.1", number)) == ""
