"""What a host is asked for where templates are made: an instance to work in, an image of it, and neither of them left.

The instance is called the builder. It is nobody's machine, has no GPU and leads nowhere from outside.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

FETCHING = "fetching"  # the step at which `prepare` can be left
IMAGE_PREFIX = "berth-template-"  # with the template's id: the image's alias on its host


@dataclass(frozen=True)
class Origin:
    """What a builder is made from: an image of the host by its `alias`, or one that `server` (simplestreams) has, or a
    copy of an `instance` of the host, or a `file` of it: an archive that was looked through (see image_files)."""

    alias: str = ""
    server: str = ""
    instance: str = ""
    file: str = ""

    def __str__(self) -> str:
        return self.instance or self.alias or self.file.rpartition("/")[2]


def image_alias(template: int) -> str:
    """The alias of a template's image."""
    return f"{IMAGE_PREFIX}{template}"


def builder_name(template: int) -> str:
    """The instance that a template is made in."""
    return f"berth-build-{template}"


def trial_name(template: int) -> str:
    """The instance that a template is tried out with."""
    return f"berth-trial-{template}"


@dataclass(frozen=True)
class Made:
    """A template's image. `driver_version`: of the NVIDIA libraries that lie in it; "" where there are none."""

    size_bytes: int
    driver_version: str = ""


class ImageDriver(Protocol):
    """The part of a host's driver that makes templates. A template has one builder and one image, by its number."""

    def prepare(self, template: int, origin: Origin, progress: Callable[[str, int], None]) -> str:
        """Make the template's builder and start it; its name. Call `scrap` before. `progress` may raise at FETCHING, of
        which it is told every second.

        Raises GiveUp for an image or an instance that is not there, and for a privileged instance."""

    def publish(self, template: int, description: str, progress: Callable[[str, int], None]) -> Made:
        """Make the image of the builder, start a machine of it once, and remove both machines."""

    def scrap(self, template: int) -> None:
        """Remove whatever there is of a template: builder, trial, image; nothing is fine."""
