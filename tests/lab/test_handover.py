"""Bookings one after the other, as the product keeps them on a real LXD: who had which GPU at which moment."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.browser.watch import configured
from tests.lab.fixtures import Hosts
from tests.lab.lab import Lab
from tests.lab.scene import Scene, scene, second_from_now
from tests.lab.turns import Seen, in_a_ring, in_turns, p95

pytestmark = [pytest.mark.lab, pytest.mark.timed]

HANDOVERS = 20
BOUND = 1.0  # seconds from a booking's start or end to what the machine has
QUICK = 0.4  # seconds that a GPU may be nobody's between two back-to-back bookings, of 19 in 20
ALL_DONE = 2.0  # seconds for eight handovers that are due at once


@pytest.fixture(scope="module")
def berth(lab: Hosts, big_lab: Lab) -> Iterator[Scene]:
    with scene(lab.ws1, lab.ws2, big_lab) as made:
        yield made


@pytest.fixture(scope="module")
def beside(berth: Scene, lab: Hosts) -> tuple[str, str]:
    """On the other host: one who has the GPU of the same PCI address all the time, and one who has none."""
    names = berth.people(lab.ws2, 2)
    begin = second_from_now(1)
    berth.book(names[0], lab.ws2, 0, begin, begin + 600)
    berth.wake(lab.ws2)
    return names[0], names[1]


@pytest.fixture(scope="module")
def seen(berth: Scene, lab: Hosts, beside: tuple[str, str]) -> Seen:
    return in_turns(berth, lab.ws1, 2, HANDOVERS, beside=tuple((lab.ws2, name) for name in beside))


def test_back_to_back_bookings_never_share_and_wait_for_little(seen: Seen, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f"\n  one at a time, {seen.summary()}")
    assert seen.watch.shared == []
    assert len(seen.handovers) == HANDOVERS
    assert all(one.due <= one.gone <= one.here for one in seen.handovers)
    assert p95([one.took for one in seen.handovers]) <= QUICK
    assert max(seen.starts + seen.ends) <= BOUND
    assert seen.watch.pace["p99"] <= 0.02, "looked too seldom to be sure"


def test_the_same_address_on_another_host_is_another_gpu(
    seen: Seen, beside: tuple[str, str], lab: Hosts, berth: Scene
) -> None:
    ours, theirs = lab.ws1.gpus[0], lab.ws2.gpus[0]
    assert ours.pci_address == theirs.pci_address
    assert ours.minor != theirs.minor
    holder, nobody = beside
    began = seen.watch.came(holder, theirs.minor, 0)
    assert all(sight.have[holder] == {theirs.minor} for sight in seen.watch.sights if sight.at >= began)
    assert seen.watch.ever(nobody) == set()
    for host, name in berth.machines:
        if host is lab.ws1:
            assert seen.watch.ever(name) <= set(lab.ws1.minors)
    assert configured(lab.ws2, holder) == {theirs.pci_address}
    assert configured(lab.ws2, nobody) == set()


def test_eight_handovers_in_the_same_second(berth: Scene, big_lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    seen = in_a_ring(berth, big_lab, 8)
    done = max(one.here - one.due for one in seen.handovers)
    with capsys.disabled():
        print(f"\n  eight at once, all done after {done * 1000:.0f} ms, {seen.summary()}")
    assert seen.watch.shared == []
    assert done <= ALL_DONE
