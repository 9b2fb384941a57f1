"""`berth instance …`: asks for the work, waits until it is done, and does it here where no agent is alive."""

from __future__ import annotations

from typing import Any

import click

from app.cli.base import json_option, only_of_host, print_json, show, somebody, with_app
from app.cli.work import carry_out, silence
from app.extensions import db, transaction
from app.models import Instance, Operation, OperationKind, Template
from app.services import accounts, care, instances, inventory, lending, moving, operations, placing, templates


@click.group()
def instance() -> None:
    """People's machines."""


@instance.command()
@click.argument("name")
@click.option("--host", "host_name", default="", help="By itself the host with the most room for it.")
@click.option("--template", "template_name", default="", help="A template of that host.")
@click.option("--image", default="", help="In place of a template: an image's alias on that host.")
@click.option("--owner", required=True, help="The username of the person whose machine it will be.")
@click.option("--cpus", type=int, default=4, show_default=True)
@click.option("--memory", type=int, default=8, show_default=True, help="GiB")
@click.option("--disk", type=int, default=20, show_default=True, help="GiB")
@json_option
@with_app
def create(
    name: str,
    host_name: str,
    template_name: str,
    image: str,
    owner: str,
    cpus: int,
    memory: int,
    disk: int,
    as_json: bool,
) -> None:
    """Make a machine from a template; returns when it runs."""
    if bool(template_name) == bool(image):
        raise click.UsageError("Give either --template or --image.")
    if image and not host_name:
        raise click.UsageError("Say with --host whose image that is.")
    with transaction():
        template = _template(template_name, host_name, memory, disk) if template_name else None
        host = template.host if template else inventory.host(host_name)
        if lack := placing.lacking(host, memory, disk):
            click.echo(lack, err=True)
        operation = instances.request_create(
            somebody(),
            accounts.get(owner),
            name=name,
            host=host,
            image=image,
            template=template,
            cpus=cpus,
            memory_gib=memory,
            disk_gib=disk,
            anyway=True,
        )
    carry_out(operation, host)
    _tell(name, f"{name} runs on {host.name}.", as_json)


@instance.command("list")
@only_of_host
@json_option
@with_app
def list_(host_name: str, as_json: bool) -> None:
    """All machines."""
    with transaction():
        host_id = inventory.host(host_name).id if host_name else None
        rows = [_row(found) for found in instances.everyones(host_id)]
    show(rows, as_json=as_json, empty="No machines yet.")


@instance.command()
@click.argument("name")
@json_option
@with_app
def start(name: str, as_json: bool) -> None:
    """Start a machine; returns when it runs."""
    _switch(name, OperationKind.START)
    _tell(name, f"{name} runs.", as_json)


@instance.command()
@click.argument("name")
@click.option("--force", is_flag=True, help="Do not wait for its programs to end.")
@json_option
@with_app
def stop(name: str, force: bool, as_json: bool) -> None:
    """Stop a machine; returns when it has stopped."""
    _switch(name, OperationKind.STOP, **({"force": True} if force else {}))
    _tell(name, f"{name} is stopped.", as_json)


@instance.command()
@click.argument("name")
@json_option
@with_app
def libraries(name: str, as_json: bool) -> None:
    """Give a machine NVIDIA's libraries as its host's new machines have them; returns when they are there, or says that
    they will be from its next start on."""
    with transaction():
        target = instances.get(None, name)
        operation = lending.lend(somebody(), target)
    carry_out(operation, target.host)
    with transaction():
        db.session.expire_all()  # an agent has changed it
        found = operations.last(target.id, Operation.id == operation.id)
        due = found is not None and bool(found.details.get("due"))
    later = f"{name} has them from its next start on: berth instance stop {name}; berth instance start {name}"
    _tell(name, later if due else f"{name} has the host's NVIDIA libraries.", as_json, libraries_due=due)


@instance.command()
@click.argument("name")
@with_app
def delete(name: str) -> None:
    """Remove a machine with everything in it."""
    with transaction():
        found = instances.get(None, name)
        operation = care.delete_now(somebody(), found)
    carry_out(operation, found.host)
    click.echo(f"{name} is deleted.")


@instance.command()
@click.argument("name")
@click.argument("host_name", metavar="HOST")
@json_option
@with_app
def move(name: str, host_name: str, as_json: bool) -> None:
    """Bring a machine to another host of its LXD cluster; what runs in it is ended, and it is started there if it ran.

    Its disk, snapshots and name stay; its ports are new, and GPUs stay in their host."""
    with transaction():
        target, found = inventory.host(host_name), instances.get(None, name)
        operation, source = moving.request(somebody(), found, target, anyway=True), found.host
    carry_out(operation, source)
    with transaction():
        after = operations.last(found.id)
    if after is not None and after.kind == OperationKind.START:
        carry_out(after, target)
    _tell(name, f"{name} is on {host_name}.", as_json)


def _template(name: str, host_name: str, memory: int, disk: int) -> Template:
    if host_name:
        return templates.named(inventory.host(host_name), name)
    return placing.place(name, None, silence(), memory_gib=memory, disk_gib=disk)


def _switch(name: str, kind: OperationKind, **details: bool) -> None:
    with transaction():
        target = instances.get(None, name)
        operation = instances.request(somebody(), target, kind, **details)
    carry_out(operation, target.host)


def _tell(name: str, sentence: str, as_json: bool, **more: bool) -> None:
    if not as_json:
        click.echo(sentence)
        return
    with transaction():
        db.session.expire_all()  # an agent has changed it
        print_json(_row(instances.get(None, name)) | more)


def _row(found: Instance) -> dict[str, Any]:
    return {
        "name": found.name,
        "host": found.host.name,
        "owner": found.owner.username,
        "status": str(found.status),
        "image": found.image,
        "cpus": found.cpus,
        "memory_mib": found.memory_mib,
        "disk_gib": found.disk_gib,
    }


COMMANDS = (instance,)
