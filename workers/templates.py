"""Building templates and removing their images. Done again from the start after a crash: first, what was left goes."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self

from app.drivers.base import DriverError, GiveUp
from app.drivers.image_files import ImageFiles
from app.drivers.images import FETCHING, Made, Origin
from app.drivers.inside import Command
from app.extensions import settings, transaction
from app.services import builds
from app.services.builds import Job
from app.services.checkup.versions import safe_for_images
from app.services.recipes import Step

if TYPE_CHECKING:
    from workers.works import Work

FROM, TO = 10, 80  # per cent at which the steps inside begin and end
_SAID = 8 << 20  # bytes that a step may say
_NOTE_EVERY = 1.0  # seconds between two writes of the log
_FULL = 8_000  # characters of it that are written at once
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[^\n\t -~\u00a0-\U0010ffff]")


class Log:
    """Collects what a build says, and writes it down now and then: apt says thousands of lines. Each time it looks
    whether the build is still wanted: called with nothing while nothing is said, it raises Cancelled in time."""

    def __init__(self, work: Work) -> None:
        self._work, self._waiting, self._written = work, "", time.monotonic()
        self.end = ""  # the last of it, for whoever has to say why it failed

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._write()

    def __call__(self, text: str) -> None:
        """Add to it. What comes out of a builder steers no terminal."""
        text = _CONTROL.sub("", text)
        self.end = (self.end + text)[-2000:]
        self._waiting += text
        if len(self._waiting) > _FULL or time.monotonic() - self._written > _NOTE_EVERY:
            self._write()
            self._work.heed()

    def _write(self) -> None:
        if self._waiting:
            self._work.note(self._waiting)
        self._waiting, self._written = "", time.monotonic()


def build(work: Work) -> None:
    """Make a template: a builder, the recipe's steps in it, its image; in the end there is the image or nothing."""
    with transaction():
        job = builds.job(work.template.id)
    work.progress("clearing", 0)
    work.driver.scrap(job.template_id)
    image_files().clear(job.template_id)
    try:
        with Log(work) as log:
            log(f"== {job.name}: from {job.origin} {job.origin.server}".rstrip() + "\n")
            work.heed()
            made = _make(work, job, log)
    except BaseException:
        with suppress(DriverError):  # an unreachable host: the next try, or retiring it, clears up
            work.driver.scrap(job.template_id)
        raise
    with transaction():
        builds.built(job.template_id, made)


def discard(work: Work) -> None:
    """Remove a retired template's image. It is claimed when no machine is being made from it any more."""
    work.progress("deleting", 50)
    work.driver.scrap(work.template.id)
    with transaction():
        builds.discarded(work.template.id)


def image_files() -> ImageFiles:
    """The files of images on this host."""
    return ImageFiles(settings().images_dir)


def _make(work: Work, job: Job, log: Log) -> Made:
    begin = FROM // 2 if job.origin.file else 0

    def preparing(code: str, at: int) -> None:
        work.progress(code, begin + at * (FROM - begin) // 100)
        if code == FETCHING:  # at what LXD makes nobody ends it: it is waited for in any case
            work.heed()

    with _origin(work, job, log) as origin:
        builder = work.driver.prepare(job.template_id, origin, preparing)
    work.heed()
    whole, done = sum(step.weight for step in job.steps), 0
    for step in job.steps:
        work.progress(step.code, FROM + (TO - FROM) * done // whole)
        _run(work, builder, step, log)
        done += step.weight
    work.progress("publishing", TO)
    work.heed()  # whoever comes later is refused: an image that is being made cannot be stopped
    log("== the image\n")
    spans = {"publishing": (TO, 12), "trying": (TO + 12, 7)}

    def tell(code: str, at: int) -> None:
        begin, length = spans.get(code, (TO, 0))
        work.progress(code, begin + length * at // 100)

    return work.driver.publish(job.template_id, job.description or job.name, tell)


@contextmanager
def _origin(work: Work, job: Job, log: Log) -> Iterator[Origin]:
    """What the builder is made from; of a file only what is left of it when it was looked through."""
    if not job.origin.file:
        yield job.origin
        return
    version = work.driver.server().version
    if not settings().import_anyway and not safe_for_images(version):
        todo = "Upgrade LXD there. If your distribution mended it under this number, set BERTH_IMPORT_ANYWAY=1 there."
        detail = f"LXD {version} can be taken over by an image as it reads it; 5.0.9, 5.21.7 and 6.9 cannot"
        raise GiveUp(f"Take the image {job.origin.file}", detail, todo)
    log("== looking through it\n")
    with image_files().sifted(
        job.origin.file, job.template_id, job.checksum, lambda at: work.progress("looking", at * FROM // 200)
    ) as found:
        log(f"{found.entries} files, SHA-256 {found.sha256}\n")
        if found.left_out:
            log(f"{found.left_out} left out: templates that LXD would fill in, devices that every machine has anyway\n")
        with transaction():
            builds.looked_through(job.template_id, found.sha256)
        yield Origin(file=str(found.path))


def _run(work: Work, builder: str, step: Step, log: Log) -> None:
    log(f"== {step.code}\n")
    began = time.monotonic()
    command = Command(("/bin/sh", "-c", step.script), step.environment, limit=step.limit, most=_SAID)
    answer = work.driver.run(builder, command, heard=log)
    if not answer.well:
        raise GiveUp(f"Step {step.code}", _reason(log.end), "The log has the rest. Mend it, then try again.")
    log(f"== {step.code} took {time.monotonic() - began:.0f} s\n")


def _reason(text: str) -> str:
    """The line that says why: apt's errors if there are any, else the last one."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("==")]
    errors = [line for line in lines if line.startswith(("E:", "dpkg: error"))]
    return (" ".join(errors[:2]) or (lines[-1] if lines else "it failed without a word"))[:400]
