"""Templates on a real LXD: builders, their images, and what an earlier try left of them.

A builder is made like anybody's machine, so it is as safe as one; it bears a mark of its own, and nothing without that
mark is ever removed here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

from app.drivers.base import GiveUp, InstanceSpec, Progress
from app.drivers.image_files import PROPERTY
from app.drivers.images import Made, Origin, builder_name, image_alias, trial_name
from app.drivers.lxd import brought, build_network, instances, shapes
from app.drivers.lxd.build_network import BUILDER
from app.drivers.lxd.errors import RefusedError, as_driver_errors
from app.drivers.lxd.peek import OWN, Peek
from app.drivers.lxd.shapes import Json
from app.drivers.lxd.updates import Updates
from app.drivers.lxd.wire import Wire

_PUBLISH_TIMEOUT = 1800.0


class TemplateSide(Updates):
    """ImageDriver's part of the driver."""

    def prepare(self, template: int, origin: Origin, progress: Progress) -> str:
        """Make the template's builder and start it; its name."""
        return prepare(self._wire, template, origin, progress)

    def publish(self, template: int, description: str, progress: Progress) -> Made:
        """Make the image of the builder and try it out."""
        return publish(self._wire, template, description, progress)

    def scrap(self, template: int) -> None:
        """Remove whatever there is of a template."""
        scrap(self._wire, template)


def prepare(wire: Wire, template: int, origin: Origin, progress: Progress) -> str:
    """Make the template's builder and start it; its name."""
    name, what = builder_name(template), f"Make a builder from {origin}"
    with as_driver_errors(what):
        progress("preparing", 0)
        with _source(wire, what, template, origin, progress) as source, instances.alone(wire):
            body = _body(wire, what, template, name) | {"source": source}
            if not _has_network(wire, body):
                body["devices"] |= build_network.nic(wire, template)
            instances.make(wire, what, body, lambda done: progress("copying", done))
        if origin.instance:
            instances.strip(wire, name, body)
        instances.power(wire, name, "start")
        instances.await_init(wire, name, what)
    return name


def publish(wire: Wire, template: int, description: str, progress: Progress) -> Made:
    """Make the image of the builder, start a machine of it once, and remove both machines."""
    name, alias, what = builder_name(template), image_alias(template), "Make the image"
    with as_driver_errors(what):
        driver = _own_driver(wire, name)
        # At once: what a clean shutdown writes would be in the image.
        instances.power(wire, name, "stop", force=True)
        request = {
            "source": {"type": "instance", "name": name},
            "properties": {"description": description, PROPERTY: str(template)},
            "aliases": [{"name": alias, "description": description}],
            "compression_algorithm": "none",  # minutes of one processor for an image that never leaves the host
            "public": False,
        }
        progress("publishing", 0)
        told = partial(progress, "publishing")
        wire.finish(what, "post", "images", json=request, limit=_PUBLISH_TIMEOUT, progress=told)
        _remove(wire, name, template)
        build_network.remove(wire, template)
        _try_out(wire, template, progress)
        fingerprint = wire.get("images", "aliases", alias)["target"]
        return Made(int(wire.get("images", fingerprint)["size"]), driver)


def scrap(wire: Wire, template: int) -> None:
    """Remove whatever there is of a template."""
    with as_driver_errors("Remove what is left of the template"):
        for name in (builder_name(template), trial_name(template)):
            _remove(wire, name, template)
        build_network.remove(wire, template)
        brought.remove(wire, template)
        for image in wire.get("images", recursion=1) or []:
            aliases = {alias["name"] for alias in image.get("aliases") or []}
            if image_alias(template) in aliases or (image.get("properties") or {}).get(PROPERTY) == str(template):
                _forgiving(lambda image=image: wire.send("delete", "images", image["fingerprint"], limit=60.0))  # type: ignore[misc]


def _try_out(wire: Wire, template: int, progress: Progress) -> None:
    """A machine of the new image has to come up. LXD unpacks the image for it: the first person need not wait."""
    name, what = trial_name(template), "Start a machine from the new image"
    progress("trying", 0)
    with instances.alone(wire):
        body = _body(wire, what, template, name) | {"source": {"type": "image", "alias": image_alias(template)}}
        instances.make(wire, what, body, lambda done: progress("trying", done))
    instances.power(wire, name, "start")
    instances.await_init(wire, name, what)
    _remove(wire, name, template)


def _own_driver(wire: Wire, name: str) -> str:
    """Of which version the NVIDIA libraries are that the builder has itself: not those that the host lends it."""
    if ((wire.find(name)[0] or {}).get("expanded_config") or {}).get("nvidia.runtime") == "true":
        return ""
    found = sorted(Peek(wire.endpoint).libraries(name, OWN) or ())
    return found[-1] if found else ""


def _body(wire: Wire, what: str, template: int, name: str) -> Json:
    """The request for an instance as anybody's, but nobody's, and with all the processors and disk that there are."""
    body = instances.blank(wire, what, InstanceSpec(name, "", 1, 1, 1, ""))
    for key in (shapes.OWNER, "limits.cpu", "limits.memory"):
        body["config"].pop(key, None)
    body["config"] |= {BUILDER: str(template), shapes.PROTECTED: "false"}  # a copy would have its original's
    body["devices"]["root"].pop("size", None)
    return body


def _has_network(wire: Wire, body: Json) -> bool:
    devices = {**wire.get("profiles", "default")["devices"], **body["devices"]}
    return any(device.get("type") == "nic" for device in devices.values())


@contextmanager
def _source(wire: Wire, what: str, template: int, origin: Origin, progress: Progress) -> Iterator[Json]:
    """What LXD is told to make a builder from."""
    if origin.instance:
        source = wire.find(origin.instance)[0]
        if source is None:
            raise GiveUp(what, "the host has no such instance", "Choose another one.")
        if shapes.privileged(source) or source.get("type") != "container":
            raise GiveUp(what, "it is privileged, or no container", "Set security.privileged=false and restart it.")
        yield {"type": "copy", "source": origin.instance, "instance_only": True}
    elif origin.server:
        with brought.fetched(wire, template, origin, progress) as fingerprint:
            yield {"type": "image", "fingerprint": fingerprint}
    elif origin.file:
        with brought.uploaded(wire, template, origin.file, progress) as fingerprint:
            yield {"type": "image", "fingerprint": fingerprint}
    else:
        instances.refuse_unknown_image(wire, what, origin.alias)
        yield {"type": "image", "alias": origin.alias}


def _remove(wire: Wire, name: str, template: int) -> None:
    """Stop and remove an instance of ours, also one that LXD is still making for somebody who is gone."""
    what = f"Remove {name}"
    with suppress(RefusedError):
        instances.join(wire, name)
    if (current := wire.find(name)[0]) is None:
        return
    if current["config"].get(BUILDER) != str(template):
        raise GiveUp(what, f"it has no {BUILDER}={template}: Berth did not make it", "Rename or delete it.")
    if current["status"].lower() != "stopped":
        instances.power(wire, name, "stop", force=True)
    instances.remove(wire, name, what)


def _forgiving(call: Callable[[], object]) -> None:
    """What is gone already was to be removed."""
    try:
        call()
    except RefusedError as error:
        if error.code != 404:
            raise
