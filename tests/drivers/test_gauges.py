"""What GPUs are at: the real pynvml, over a library made for these tests; and the simulated host's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from app import clock
from app.drivers import gauges as module
from app.drivers import nvml_asked as asking
from app.drivers.asked import Asked
from app.drivers.base import NVIDIA_MAJOR, Tag
from app.drivers.fake import FakeLxd
from app.drivers.fake_kernel import FakeKernel
from app.drivers.gauges import Gauge, NvmlGauges, Running
from tests.drivers.nvml_stub import (
    DRIVER_NOT_LOADED,
    HANGS,
    LOST,
    NOT_SAID,
    NOT_SUPPORTED,
    Gpu,
    Process,
    Stub,
    whole,
)

ONE, TWO = Gpu(1).pci_address, Gpu(2).pci_address


@pytest.fixture
def gauges(stub: Stub) -> Iterator[NvmlGauges]:
    made = stub.gauges()
    yield made
    made.close()


def read(gauges: NvmlGauges, *addresses: str, processes: bool = True) -> dict[str, Gauge]:
    return {one.pci_address: one for one in gauges.read(addresses or (ONE, TWO), processes=processes)}


def test_all_that_a_gpu_says(stub: Stub, gauges: NvmlGauges) -> None:
    known = {11: Process(900, share=30), 12: Process(NOT_SAID)}
    stub.say(whole(1, 80, compute=[11], graphics=[11, 12], known=known, values={"throttle": (4 | 0x40,)}), whole(2))
    found = read(gauges)
    assert found[ONE].values == {
        "utilisation": 80, "memory_utilisation": 40, "memory_used": 2048, "memory_total": 49152, "power": 220.0,
        "power_limit": 300, "temperature": 80, "clock_sm": 1410, "clock_memory": 8001, "ecc_errors": 0,
        "throttle": "power, heat",
    }  # fmt: skip
    assert found[ONE].processes == (Running(11, 900, True, 30.0), Running(12, None, False, None))
    assert (found[ONE].busy, found[ONE].occupied, found[ONE].trouble) == (0.8, None, "")
    assert found[TWO].processes == ()
    assert read(gauges, processes=False)[ONE].processes is None


def test_each_value_is_asked_for_alone(stub: Stub, gauges: NvmlGauges) -> None:
    lacks = {"power": NOT_SUPPORTED, "rates": NOT_SUPPORTED, "ecc": 999}
    stub.say(whole(1, 80, errors=lacks, compute_error=NOT_SUPPORTED, graphics_error=NOT_SUPPORTED))
    (found,) = read(gauges, ONE).values()
    assert found.values.keys() == {
        "memory_used", "memory_total", "power_limit", "temperature", "clock_sm", "clock_memory", "throttle",
    }  # fmt: skip
    assert (found.busy, found.processes, found.trouble) == (None, None, "")
    stub.say(whole(1, 80))
    assert read(gauges, ONE)[ONE].values["ecc_errors"] == 0, "what failed once is asked for again"


def test_it_is_the_mean_of_what_was_since_the_last_reading(stub: Stub, gauges: NvmlGauges) -> None:
    stub.environment["NVML_PERIOD"] = "5000"  # a sample every 5 ms
    stub.say(whole(1, compute=[11], known={11: Process()}, spans=[(11, 0, 1 << 60, 1)]))
    before = time.time_ns() // 1000
    read(gauges, ONE)
    began = time.time_ns() // 1000
    spans = [(11, began, began + 150_000, 60), (12, began + 150_000, began + 300_000, 90)]
    stub.say(whole(1, compute=[11, 12], known={11: Process(), 12: Process()}, spans=spans))
    time.sleep(max(0.0, began / 1e6 + 0.6 - time.time()))  # half of it busy: a point now would say that nothing runs
    took = time.time_ns() / 1000 - began
    (found,) = read(gauges, ONE).values()
    after, worked = time.time_ns() / 1000, (150_000 * 60 + 150_000 * 90) / 100
    assert found.busy is not None
    assert 0.97 * worked / (after - before) <= found.busy <= 1.03 * worked / took
    assert found.processes is not None
    shares = {one.pid: one.utilisation or 0.0 for one in found.processes}
    assert shares[12] == pytest.approx(1.5 * shares[11], abs=1.3), "NVML says whole per cents"


def test_who_begins_after_a_rest_has_no_share_in_that(stub: Stub, gauges: NvmlGauges) -> None:
    stub.environment["NVML_PERIOD"] = "5000"
    stub.say(whole(1, known={11: Process()}, spans=[(11, 0, 1, 1)]))  # NVML says that nothing ran, for 41 s
    assert read(gauges, ONE)[ONE].processes == ()
    began = time.time_ns() // 1000
    stub.say(whole(1, compute=[11], known={11: Process()}, spans=[(11, began, 1 << 60, 40)]))
    time.sleep(max(0.0, began / 1e6 + 0.3 - time.time()))
    found = read(gauges, ONE)[ONE]
    assert found.busy is not None
    assert found.busy > 0.2
    assert found.processes is not None
    assert found.processes[0].utilisation == pytest.approx(100 * found.busy, abs=3), "by the last 0.3 s, as the GPU is"


@pytest.mark.parametrize("samples", [True, False])
def test_a_clock_that_is_set_back_costs_no_more_than_one_reading(
    stub: Stub, gauges: NvmlGauges, *, samples: bool
) -> None:
    stub.environment |= {"NVML_PERIOD": "5000"} | ({} if samples else {"NVML_NO_SAMPLES": "1"})
    known = {11: Process()}
    stub.say(whole(1, compute=[11], known=known, spans=[(11, 0, 1 << 60, 40)]), ahead=3_600_000_000)
    for _ in range(2):
        read(gauges, ONE)
        time.sleep(0.05)
    stub.say(whole(1, compute=[11], known=known, spans=[(11, 0, 1 << 60, 40)]))
    read(gauges, ONE)
    began = time.time_ns() // 1000
    stub.say(whole(1, compute=[11], known=known, spans=[(11, began, began + 150_000, 80)]))
    time.sleep(max(0.0, began / 1e6 + 0.3 - time.time()))
    found = read(gauges, ONE)[ONE]
    assert found.busy is not None
    assert (found.busy > 0.1) == samples, "a point now says that nothing runs"
    assert found.processes is not None
    assert (found.processes[0].utilisation or 0.0) > 10


def test_one_that_falls_off_the_bus_leaves_the_others(
    stub: Stub, gauges: NvmlGauges, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub.say(whole(1, 10), whole(2, 20))
    read(gauges)
    (child,) = gauges.own
    stub.say(whole(1, 10, error=LOST), whole(2, 20))
    found = read(gauges)
    assert (found[ONE].values, found[ONE].processes) == ({}, None)
    assert "lost" in found[ONE].trouble
    assert found[TWO].values["utilisation"] == 20
    stub.say(whole(1, 10), whole(2, 20))
    assert read(gauges)[ONE].values["utilisation"] == 10
    stub.say(whole(1, error=LOST), whole(2, 20))
    monkeypatch.setattr(module, "ANEW", 0.0)
    for _ in range(3):
        read(gauges)
    assert gauges.own != {child}, "NVML is started anew, so that one that came back is found"


def test_each_gpu_has_its_time_to_wake(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "READY_WITHIN", 1.0)
    stub.environment["NVML_WAKES"] = "1200000"
    stub.say(whole(1, 10), whole(2, 20), whole(3, 30))
    gauges = stub.gauges(patience=1.0)
    assert [one.trouble for one in read(gauges, ONE, TWO).values()] == ["", ""], "2.4 s, and then they are open"
    (child,) = gauges.own
    assert [one.trouble for one in read(gauges, ONE, TWO, Gpu(3).pci_address).values()] == ["", "", ""]
    assert gauges.own == {child}
    gauges.close()


def test_one_that_stays_away_is_looked_for_ever_more_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    gauges, starts, now = NvmlGauges({}), list[int](), 0
    monkeypatch.setattr(gauges, "_end", lambda: starts.append(now))

    def lost(seconds: int, *addresses: str) -> list[int]:
        """For so long, read every two seconds; after how many seconds each NVML was started anew."""
        nonlocal now
        began, before = now, len(starts)
        while now < began + seconds:
            gauges._asked_at = now
            gauges._look_for_lost([Gauge(one, trouble="lost" if one in addresses else "") for one in (ONE, TWO)])
            now += 2
        moments = [began, *starts[before:]]
        return [later - earlier for earlier, later in pairwise(moments)]

    assert lost(4 * 3600, ONE) == [62, 122, 242, 482, 962, 1922, 3602, 3602]
    assert lost(200, ONE, TWO) == [62, 122], "another one"
    assert lost(60) == []
    assert lost(70, ONE) == [62], "and it is another time when it goes again"


def test_split_up_it_is_busy_in_as_many_parts_as_have_a_process(stub: Stub, gauges: NvmlGauges) -> None:
    known = {11: Process(100, part=1), 12: Process(100, part=1), 13: Process(100, part=17), 14: Process(100, part=2)}
    mig = whole(1, errors={"rates": NOT_SUPPORTED}, values={"mig": (1, 7, 4)}, compute=[*known], known=known)
    stub.say(mig)
    (found,) = read(gauges, ONE).values()
    assert (found.busy, found.occupied, found.values["mig"]) == (None, 0.75, 4)
    assert "utilisation" not in found.values
    stub.say(whole(1, errors={"rates": NOT_SUPPORTED}, values={"mig": (1, 7, 4)}))
    found = read(gauges, ONE)[ONE]
    assert (found.occupied, found.values["mig_in_use"]) == (0.0, 3), "as it was when it was looked at last"
    unsaid = whole(1, compute_error=NOT_SUPPORTED, graphics_error=NOT_SUPPORTED, values={"mig": (1, 7, 4)})
    stub.say(unsaid)
    found = read(gauges, ONE)[ONE]
    assert (found.processes, found.occupied) == (None, None), "not known, which is not 0"


def test_a_driver_that_is_loaded_anew_is_read_again(
    stub: Stub, gauges: NvmlGauges, caplog: pytest.LogCaptureFixture
) -> None:
    stub.say(whole(1, 10))
    assert read(gauges, ONE)[ONE].trouble == ""
    stub.say(init=DRIVER_NOT_LOADED)
    assert "NVML says nothing" in read(gauges, ONE)[ONE].trouble
    assert gauges.own == frozenset(), "nothing is kept open that would keep the driver"
    assert not caplog.records
    stub.say(whole(1, 30))
    assert read(gauges, ONE)[ONE].values == {}, "not asked again so soon"
    gauges._silent_until = 0.0
    assert read(gauges, ONE)[ONE].values["utilisation"] == 30


def test_without_the_library_there_is_one_try_and_no_noise(stub: Stub, caplog: pytest.LogCaptureFixture) -> None:
    gauges = NvmlGauges(stub.environment | {"LD_LIBRARY_PATH": "/nonexistent"})
    assert {one.trouble for one in gauges.read([ONE, TWO], processes=True)} == {
        "NVML says nothing: NVML Shared Library Not Found"
    }
    assert gauges._silent_until - time.monotonic() > asking.AGAIN
    assert gauges.own == frozenset()
    assert not caplog.records


def test_one_that_hangs_is_given_up(
    stub: Stub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "PER_GPU", 0.0)
    gauges = stub.gauges(patience=2.0)
    stub.say(whole(1, 10))
    read(gauges, ONE)
    stub.say(whole(1, errors={"power": HANGS}))
    began = time.monotonic()
    for _ in range(3):
        assert "no answer" in read(gauges, ONE)[ONE].trouble
    assert time.monotonic() - began < 3 * gauges.patience, "it is waited for once"
    assert (gauges.own, len(caplog.records)) == (frozenset(), 1)
    end = Asked.end
    gauges._silent_until = 0.0
    monkeypatch.setattr(Asked, "end", lambda _self: False)  # it waits within the kernel
    read(gauges, ONE)
    stub.say(whole(1, 30))
    gauges._silent_until = 0.0
    assert read(gauges, ONE)[ONE].values == {}
    assert len(gauges.own) == 1, "no other one is started beside it, and it is known to be ours"
    assert gauges._abandoned is not None
    end(gauges._abandoned)
    monkeypatch.undo()
    assert read(gauges, ONE)[ONE].values["utilisation"] == 30
    gauges.close()


def test_nothing_is_kept_open_that_is_not_read(stub: Stub, gauges: NvmlGauges) -> None:
    stub.say(whole(1), whole(2))
    read(gauges)
    both = gauges.own
    assert read(gauges, TWO).keys() == {TWO}
    assert gauges.own != both, "the first one could not be reset else"
    assert len(gauges.own) == 1
    assert gauges.read([], processes=True) == ()
    assert gauges.own == frozenset()


# The simulated host's


def test_on_a_simulated_host_somebody_is_always_at_work(tmp_path: Path) -> None:
    lxd, kernel = FakeLxd(tmp_path / "lab.json", gpus=2, pace=0), FakeKernel(tmp_path / "lab.json")
    one, two = lxd.gpus()
    lxd.add_instance("alice", owner="alice")
    lxd.attach("alice", one, Tag(5, 6, 2_000_000_000))
    by_hand = kernel.add_process("", (NVIDIA_MAJOR, two.minor))
    shares, begin = [], datetime(2026, 11, 3, 14, tzinfo=UTC)
    for number in range(120):
        with clock.frozen(begin + timedelta(seconds=30 * number)):
            busy, other = kernel.gauges.read([one.pci_address, two.pci_address], processes=True)
            assert kernel.gauges.read([one.pci_address], processes=True) == (busy,), "the same for everybody"
            running = {running.pid for running in busy.processes or ()}
            assert {who.instance for who in kernel.whose(lxd.observe(), running).values()} <= {"alice"}
        assert busy.values["memory_used"] > (1000 if running else 0)
        assert [running.pid for running in other.processes or ()] == [by_hand]
        shares.append(busy.busy or 0.0)
    assert 0.5 < sum(shares) / len(shares) < 0.85
    assert 0 < len([share for share in shares if not share]) < len(shares) / 2, "with gaps"
    assert "no such GPU" in kernel.gauges.read(["0000:ff:00.0"], processes=True)[0].trouble
