"""`berth template …`: asks for a template, shows what its host's agent does, and returns when it is ready."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from app.cli.base import Failed, json_option, only_of_host, print_json, printable, show, somebody, with_app
from app.cli.work import carry_out
from app.drivers.image_files import FILE_NAME, ImageFiles
from app.errors import InvalidInput
from app.extensions import settings, transaction
from app.models import Template, TemplateKind
from app.services import builds, inventory, operations, templates
from app.services.recipes import EXTRAS
from app.services.template_rules import Wish


@click.group()
def template() -> None:
    """What machines are made from."""


def _common(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of every way to make a template."""
    for option in (
        json_option,
        click.option("--for", "users", multiple=True, metavar="USER", help="Only for these people; may be repeated."),
        click.option("--description", default=""),
        click.option("--host", "host_name", required=True),
    ):
        command = option(command)
    return command


@template.command()
@click.argument("recipe")
@click.option("--name", default="", help="By itself the recipe's.")
@click.option(
    "--from", "start", default="", metavar="IMAGE", help="The host's image, ubuntu:24.04, images:debian/12, …"
)
@click.option("--mirror", default="", help="Where packages come from.")
@click.option("--package", "packages", multiple=True, help="One more package; may be repeated.")
@click.option("--with", "extras", multiple=True, metavar="WHAT", help=f"Also {', '.join(EXTRAS)}; may be repeated.")
@_common
@with_app
def build(recipe: str, name: str, **options: Any) -> None:
    """Build one by a recipe: base or desktop."""
    recipe_options = {key: options.pop(key) for key in ("start", "mirror", "packages", "extras")}
    _make(name or recipe, TemplateKind.RECIPE, recipe, options, **recipe_options)


@template.command()
@click.argument("image")
@click.option("--name", required=True)
@click.option("--desktop", is_flag=True, help="It has a remote desktop.")
@_common
@with_app
def take(image: str, name: str, desktop: bool, **common: Any) -> None:
    """Make one of an image as it is: the host's own, or ubuntu:24.04, images:debian/12, …"""
    _make(name, TemplateKind.IMAGE, image, common, desktop=desktop)


@template.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--name", required=True)
@click.option("--desktop", is_flag=True, help="It has a remote desktop.")
@click.option("--sha256", "checksum", default="", help="What the file's SHA-256 has to be.")
@_common
@with_app
def import_(file: Path, name: str, desktop: bool, checksum: str, **common: Any) -> None:
    """Make one of an image's file, on its host as root. It is looked through first.

    A tarball as `lxc image export` writes it: metadata.yaml and rootfs/ in one tar, tar.gz, tar.xz or tar.bz2."""
    shelf = ImageFiles(settings().images_dir)
    with transaction():
        told = inventory.host(common["host_name"]).image_files.get("directory", "")
    if told and told != str(shelf.directory):
        raise Failed(
            f"The agent of {common['host_name']} looks in {told}: set BERTH_DATA={Path(told).parent} here, too."
        )
    source = shelf.put(file, file.name if FILE_NAME.fullmatch(file.name) else f"import-{name}")
    brought = file.resolve().parent != shelf.directory.resolve()
    try:
        _make(name, TemplateKind.FILE, source, common, desktop=desktop, checksum=checksum)
    except InvalidInput:
        if brought:
            shelf.remove(source)
        raise
    if brought:  # what failed is tried again with the file, on the page too
        shelf.remove(source)


@template.command()
@click.argument("instance")
@click.option("--name", required=True)
@click.option("--desktop", is_flag=True, help="It has a remote desktop.")
@_common
@with_app
def publish(instance: str, name: str, desktop: bool, **common: Any) -> None:
    """Make one of a machine that somebody prepared. Its files come along."""
    _make(name, TemplateKind.INSTANCE, instance, common, desktop=desktop)


@template.command()
@click.argument("name")
@click.option("--host", "host_name", required=True)
@with_app
def retry(name: str, host_name: str) -> None:
    """Build once more what failed; of a retired one, remove its image once more."""
    with transaction():
        host = inventory.host(host_name)
        found = templates.to_retry(host, name)
        operation = templates.retry(somebody(), found)
    carry_out(operation, host, _watch(operation.id))
    click.echo(f"{name} is retired." if found.retired_at else f"{name} is ready on {host_name}.")


@template.command()
@click.argument("name")
@click.option("--host", "host_name", required=True)
@with_app
def cancel(name: str, host_name: str) -> None:
    """Put an end to a build that is under way. `berth template retry` begins it again."""
    with transaction():
        over = builds.cancel(somebody(), templates.named(inventory.host(host_name), name))
    click.echo(f"{name} is cancelled." if over else f"{name} is cancelled: {host_name} ends it as soon as it can.")


@template.command("list")
@only_of_host
@json_option
@with_app
def list_(host_name: str, as_json: bool) -> None:
    """All templates in use."""
    with transaction():
        host_id = inventory.host(host_name).id if host_name else None
        rows = [_row(found) for found in templates.every(host_id)]
    show(rows, as_json=as_json, empty="No templates yet.")


@template.command()
@click.argument("name")
@click.option("--host", "host_name", required=True)
@with_app
def retire(name: str, host_name: str) -> None:
    """Offer it to nobody any more, and remove its image. Machines made from it stay."""
    with transaction():
        host = inventory.host(host_name)
        operation = templates.retire(somebody(), templates.named(host, name))
    carry_out(operation, host)
    click.echo(f"{name} is retired.")


def _make(name: str, kind: TemplateKind, source: str, common: dict[str, Any], **more: Any) -> None:
    users = common["users"]
    wish = Wish(name, kind, source, common["description"], for_everyone=not users, users=users, **more)
    with transaction():
        host = inventory.host(common["host_name"])
        operation = templates.request_build(somebody(), host, wish)
        number = operation.template_id
        assert number is not None
    carry_out(operation, host, _watch(operation.id))
    with transaction():
        made = _row(templates.get(number))
    if common["as_json"]:
        print_json(made)
    else:
        click.echo(f"{name} is ready on {host.name}.")


def _watch(operation_id: int) -> Callable[[], None]:
    """Prints on stderr what is new in the operation's log, and how far it is."""
    shown, last = "", ""

    def look() -> None:
        nonlocal shown, last
        with transaction():
            text, step, percent = operations.said(operation_id)
        # The beginning of a long log goes: what was shown last is looked for where it is now.
        new = text[len(shown) :] if text.startswith(shown) else text[text.rfind(shown[-500:]) + 500 :]
        for line in new.splitlines():
            click.echo(printable(line), err=True)
        shown = text
        if step != last and step not in {"queued", "done", "failed"}:
            click.echo(f"{percent:3d} % {step}", err=True)
        last = step

    return look


def _row(found: Template) -> dict[str, Any]:
    return {
        "name": found.name,
        "host": found.host.name,
        "kind": str(found.kind),
        "source": found.source,
        "state": str(found.state),
        "desktop": found.desktop,
        "size_bytes": found.size_bytes,
        "driver_version": found.driver_version,
        "description": found.description,
        "for_everyone": found.for_everyone,
        "ready_at": found.ready_at.isoformat() if found.ready_at else None,
    }


COMMANDS = (template,)
