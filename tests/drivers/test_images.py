"""What every driver promises of templates, run over the simulated one and over a real LXD."""

from __future__ import annotations

import pytest

from app.drivers.base import GiveUp, HostUnreachable, Tag
from app.drivers.images import Origin, builder_name, image_alias, trial_name
from app.drivers.inside import shell
from tests.drivers.conftest import Subject
from tests.drivers.test_contract import NO_PROGRESS

BASE = Origin(alias="base")


@pytest.fixture
def number(subject: Subject):
    """A template's number that nobody uses; whatever is made for it goes."""
    number = 900_000 + int("".join(filter(str.isdigit, subject.unique())))
    yield number
    subject.driver.scrap(number)


def left(subject: Subject, number: int) -> set[str]:
    names = {builder_name(number), trial_name(number)}
    images = {image.alias for image in subject.driver.images()}
    return (names & set(subject.driver.observe().instances)) | ({image_alias(number)} & images)


def test_from_an_image_to_a_machine(subject: Subject, number: int) -> None:
    steps: list[str] = []
    builder = subject.driver.prepare(number, BASE, lambda step, _percent: steps.append(step))
    assert builder == builder_name(number)
    seen = subject.seen(builder)
    assert (seen.status, seen.privileged, seen.devices) == ("running", False, ())
    assert subject.driver.run(builder, shell("touch /marked")).well
    made = subject.driver.publish(number, "A test", lambda step, _percent: steps.append(step))
    size = made.size_bytes
    assert (size > 1_000_000, made.driver_version) == (True, "")
    assert list(dict.fromkeys(steps))[-2:] == ["publishing", "trying"]
    assert left(subject, number) == {image_alias(number)}
    (found,) = [image for image in subject.driver.images() if image.alias == image_alias(number)]
    assert (found.description, found.size_bytes) == ("A test", size)
    spec = subject.spec(image=image_alias(number))
    subject.driver.create(spec, NO_PROGRESS)
    assert subject.driver.run(spec.name, shell("test -e /marked")).well
    for _ in range(2):
        subject.driver.scrap(number)
        assert left(subject, number) == set()
    assert subject.seen(spec.name).status == "running", "what was made from it goes on"


def test_from_a_machine_without_what_was_plugged_in_and_whose_it_was(subject: Subject, number: int) -> None:
    source = subject.machine()
    subject.driver.attach(source, subject.gpus[0], Tag(1, 2, 3))
    builder = subject.driver.prepare(number, Origin(instance=source), NO_PROGRESS)
    assert subject.seen(builder).devices == ()
    (found,) = [one for one in subject.driver.examine().instances if one.name == builder]
    assert [key for key in found.config if key.startswith("user.berth.")] == ["user.berth.builder"]
    assert {"gpu", "proxy"} & {device["type"] for device in found.devices.values()} == set()
    assert len(subject.seen(source).devices) == 1, "the machine itself keeps it"
    subject.driver.scrap(number)
    assert left(subject, number) == set()
    assert subject.seen(source).status == "running"


def test_what_cannot_be_used_is_refused_and_leaves_nothing(subject: Subject, number: int) -> None:
    for origin, words in (
        (Origin(alias="no-such"), "no image 'no-such'"),
        (Origin(instance="no-such"), "no such instance"),
        (Origin(instance=subject.put("privileged")), "privileged"),
    ):
        with pytest.raises(GiveUp, match=words) as refused:
            subject.driver.prepare(number, origin, NO_PROGRESS)
        assert refused.value.todo
        assert left(subject, number) == set()


def test_what_an_earlier_try_left_is_scrapped(subject: Subject, number: int) -> None:
    subject.driver.prepare(number, BASE, NO_PROGRESS)
    subject.driver.scrap(number)
    assert left(subject, number) == set()
    assert subject.driver.prepare(number, BASE, NO_PROGRESS) == builder_name(number)


def test_a_host_that_is_away_is_unreachable(subject: Subject) -> None:
    for call in (
        lambda: subject.away.prepare(1, BASE, NO_PROGRESS),
        lambda: subject.away.publish(1, "", NO_PROGRESS),
        lambda: subject.away.scrap(1),
    ):
        with pytest.raises(HostUnreachable):
            call()
