"""Templates on a simulated host: builders that come and go, and images in a list."""

from __future__ import annotations

from app.drivers.base import TAG_PREFIX, GiveUp, Progress
from app.drivers.images import Made, Origin, builder_name, image_alias, trial_name
from app.drivers.simulated import SimulatedHost, State, new_instance

BUILDER = TAG_PREFIX + "builder"
_SIZE = 640_000_000
_SECONDS = 0.4  # of each simulated piece of work


class FakeImages(SimulatedHost):
    """ImageDriver for a host that exists only in a file."""

    def prepare(self, template: int, origin: Origin, progress: Progress) -> str:
        """Make the template's builder; its name."""
        name, what = builder_name(template), f"Make a builder from {origin}"
        with self._call("prepare") as state:
            source = state["instances"].get(origin.instance)
            if origin.instance and source is None:
                raise GiveUp(what, "the host has no such instance", "Choose another one.")
            if source and source["privileged"]:
                raise GiveUp(what, "it is privileged, or no container", "Set security.privileged=false and restart it.")
            if origin.alias and not origin.server and not _has_image(state, origin.alias):
                raise GiveUp(what, f"no image {origin.alias!r} on this host", "Import it there, or choose another one.")
            made = new_instance("running")
            made["config"][BUILDER] = str(template)
            state["instances"][name] = made
        for done in (0, 50, 100):
            progress("copying", done)
            self._pause(_SECONDS)
        return name

    def publish(self, template: int, description: str, progress: Progress) -> Made:
        """Put the image into the list and remove the builder."""
        progress("publishing", 0)
        self._pause(_SECONDS)
        with self._call("publish") as state:
            made = {"alias": image_alias(template), "description": description, "size_bytes": _SIZE}
            state["images"].append(made)
            del state["instances"][builder_name(template)]
        progress("trying", 0)
        self._pause(_SECONDS)
        return Made(_SIZE)

    def scrap(self, template: int) -> None:
        """Remove whatever there is of a template."""
        with self._call("scrap") as state:
            for name in (builder_name(template), trial_name(template)):
                item = state["instances"].get(name)
                if item and item["config"].get(BUILDER) != str(template):
                    what, mark = f"Remove {name}", f"{BUILDER}={template}"
                    raise GiveUp(what, f"it has no {mark}: Berth did not make it", "Rename or delete it.")
                state["instances"].pop(name, None)
            state["images"] = [image for image in state["images"] if image["alias"] != image_alias(template)]


def _has_image(state: State, alias: str) -> bool:
    return alias in {image["alias"] for image in state["images"]}
