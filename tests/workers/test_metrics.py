"""What an agent counts, and who may read it where its terminals are served."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from app import create_core
from app.drivers.fake import FakeLxd
from app.extensions import db, transaction
from app.models import Gpu
from app.services import inventory, samples
from app.services import metrics as gauges
from app.services.samples import Now
from tests.conftest import settings_for
from tests.factories import make_booking, make_instance, make_user
from tests.runtime.running import wait_for
from tests.terminals import serving
from tests.workers.house import NOW, House
from workers import metrics

HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)
TOKEN = "a-token-for-tests"


def value(text: str, name: str) -> float:
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(f"{name} "))


def test_passes_and_their_lateness_are_counted(house: House, freeze: Callable[[datetime], None]) -> None:
    def lateness(what: str, name: str) -> float:
        return value(metrics.text(), f'berth_enforcement_lateness_seconds_{name}{{what="{what}"}}')

    before = {(what, name): lateness(what, name) for what in ("attach", "detach") for name in ("count", "sum")}
    passes = value(metrics.text(), "berth_agent_pass_seconds_count")
    make_booking(house.alice, house.gpus[:1], NOW - 2 * SECOND, NOW + HOUR)
    carol = make_user("carol")
    late = make_booking(carol, house.gpus[1:2], NOW - HOUR, NOW + 2 * HOUR)
    metrics.counted(house.run())
    make_instance(carol, house.host, "carol")  # what waited for its machine is not late
    house.lxd.add_instance("carol", owner="carol")
    for moment in (NOW + SECOND, NOW + HOUR + 7 * SECOND, NOW + HOUR + 8 * SECOND):
        freeze(moment)
        metrics.counted(house.run())
    assert house.allocation(late).attached_at == NOW + SECOND
    after = {key: lateness(*key) for key in before}
    assert {key: after[key] - before[key] for key in after} == {
        ("attach", "count"): 1, ("attach", "sum"): 2, ("detach", "count"): 1, ("detach", "sum"): 7,
    }  # fmt: skip
    assert value(metrics.text(), "berth_agent_pass_seconds_count") == passes + 4


def test_the_grace_of_what_ran_on_is_not_late(house: House, freeze: Callable[[datetime], None]) -> None:
    make_booking(house.alice, house.gpus[:1], NOW, NOW + HOUR)
    house.run()
    house.kernel.add_process("alice", (195, 0), stubborn=True)
    found = []
    for seconds in (0, 10, 20, 24):  # of which the rules give 20
        freeze(NOW + HOUR + seconds * SECOND)
        found += [(seconds, one.seconds) for one in house.run().outcome.late]
    assert found == [(20, 0)]


def away(**_what: object) -> None:
    raise OperationalError("the database is away", {}, Exception())


def test_it_is_read_where_terminals_are_served(fresh_db: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    core = create_core(settings_for(fresh_db, tmp_path, BERTH_METRICS_TOKEN=TOKEN))
    fake = FakeLxd(tmp_path / "ws1.json", gpus=1, pace=0)
    with core.app_context(), transaction():
        host = inventory.add_host("test", "ws1", "sim:", fake)
        gpu = db.session.scalars(db.select(Gpu)).one()
        now = datetime.now().astimezone()
        samples.show(host.name, [Now(gpu.pci_address, now, {"utilisation": 40})])
        make_booking(make_user("li"), [gpu], now - HOUR, now + HOUR)
    with serving(core, "ws1", fake) as desk:
        wait_for(lambda: desk.url, why="the listener")
        where = f"{desk.url.replace('ws:', 'http:').rstrip('/')}/metrics"

        def get(**headers: str) -> str:
            with urllib.request.urlopen(urllib.request.Request(where, headers=headers), timeout=5) as answer:
                assert answer.headers.get_all("Content-Type") == ["text/plain; version=0.0.4; charset=utf-8"]
                return answer.read().decode()

        plain = get()
        assert 'berth_gpu_utilisation_ratio{gpu="0",host="ws1",' in plain
        assert "berth_agent_pass_seconds_count" in plain
        assert "berth_quota" not in plain
        assert 'user="li"' not in plain
        assert 'user="li"' in get(Authorization=f"Bearer {TOKEN}")
        with pytest.raises(urllib.error.HTTPError, match="401"):
            get(Authorization="Bearer wrong")
        desk.server.readings = lambda: [("0", "X", Now("", datetime.now().astimezone(), {"utilisation": 70}))]
        monkeypatch.setattr(gauges, "families", away)
        assert 'berth_gpu_utilisation_ratio{gpu="0",host="ws1",model="X"} 0.7' in get()
    with core.app_context():
        db.engine.dispose()
