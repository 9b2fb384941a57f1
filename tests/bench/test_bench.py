"""The benchmarks run, count right and report well. Times are measured here too, and never asserted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.bench import __main__ as bench
from tests.bench import create, find, live, replay, reports, sampler, trace, week, year
from tests.bench.report import Figure, Report, as_json, percentile
from tests.conftest import settings_for


def well_formed(report: Report) -> None:
    data = json.loads(as_json([report]))[0]
    assert [one["name"] for one in data["figures"]] == [figure.name for figure in report.figures]
    assert all(one["rounds"] and one["value"] >= 0 for one in data["figures"])
    assert all((one["holds"] is None) == (one["target"] == "") for one in data["figures"])
    lines = report.table().splitlines()
    assert all(any(line.startswith(figure.name) for line in lines) for figure in report.figures)


def test_bookings_are_made_and_counted(fresh_db: str, tmp_path: Path) -> None:
    report = create.measure(settings_for(fresh_db, tmp_path), each=2, warm=1, rounds=2)
    well_formed(report)
    assert {figure.name for figure in report.figures if figure.target} == {
        "bookings a second",
        "time of one, p99",
        "web CPU of one",
    }


def test_the_week_asks_the_same_whatever_is_stored(fresh_db: str, tmp_path: Path) -> None:
    report = week.measure([settings_for(fresh_db, tmp_path, BERTH_TZ="UTC")], [300], times=4, rounds=1)
    well_formed(report)
    queries = [figure for figure in report.figures if "queries" in figure.name]
    assert len(queries) == 1 + 2 * len(week.PAGES)
    assert [figure.name for figure in queries if not figure.holds] == []


def test_a_slot_is_looked_for_among_what_is_to_come(fresh_db: str, tmp_path: Path) -> None:
    report = find.measure(settings_for(fresh_db, tmp_path), stored=2000, times=1, rounds=1)
    well_formed(report)
    assert len([figure for figure in report.figures if figure.target]) == len(find.WISHES)


def test_reports_over_what_was_loaded(fresh_db: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "MINUTES", 1)
    monkeypatch.setattr(year, "PEOPLE", 4)
    monkeypatch.setattr(year, "_MINUTES", year._MINUTES.replace("'1 minute'", "'1 hour'"))  # to be quick
    report = reports.measure(settings_for(fresh_db, tmp_path, BERTH_TZ="UTC"), 2, times=1, rounds=1)
    well_formed(report)
    assert [figure.target for figure in report.figures if figure.unit] == ["<= 150 ms", "<= 400 ms", ""]


def test_the_live_page_shows_every_gpu_at_work(fresh_db: str, tmp_path: Path) -> None:
    report = live.measure(settings_for(fresh_db, tmp_path, BERTH_TZ="UTC"), days=1, times=2, rounds=1)
    well_formed(report)
    assert [figure.name for figure in report.figures if "queries" in figure.name and not figure.holds] == []
    sizes = [figure.value for figure in report.figures if figure.name.endswith("bytes")]
    assert sizes == sorted(sizes)
    assert sizes[-1] > 64 * 500


def test_reading_gpus_costs_little_and_leaves_nothing_behind(fresh_db: str, tmp_path: Path) -> None:
    report = sampler.measure(settings_for(fresh_db, tmp_path), tmp_path, processes=8, seconds=2.5, rounds=1, hours=0.1)
    well_formed(report)
    kept = ("descriptors more", "journal left", "time that is somebody's", "resident, both")
    assert [figure.name for figure in report.figures if figure.name in kept and not figure.holds] == []
    assert len([figure for figure in report.figures if figure.name in kept]) == len(kept)


def test_the_same_trace_is_replayed_with_and_without_giving_back(fresh_db: str, tmp_path: Path) -> None:
    lab = replay.Lab(gpus=2, days=0.25, a_day=200)
    found = replay.outcomes(settings_for(fresh_db, tmp_path, BERTH_TZ="UTC"), lab)
    well_formed(report := replay.told(lab, found))
    neither, line, reclaim, both, _ = (found[way] for way in replay.WAYS)
    assert neither.given_back == neither.refunded == line.given_back == line.refunded == 0
    assert min(reclaim.given_back, reclaim.refunded, both.given_back, both.refunded) > 0
    assert both.served >= neither.served > 0
    assert len({len(one.waits) for one in found.values()}) == 1, "everybody waited, served or not"
    assert min(line.by_the_list, both.by_the_list) > 0 == neither.by_the_list
    assert all(f"neither {neither.served}; " in one.others for one in report.figures if one.name == "requests served")
    assert trace.requests(lab.seed, lab.days, lab.a_day) == trace.requests(lab.seed, lab.days, lab.a_day)


def test_a_missed_target_is_said_and_is_the_exit_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slow = Report(
        "create", "by hand", (Figure("speed", (1.0, 3.0, 2.0), "m/s", least=5), Figure("bytes", (7,), most=7))
    )
    monkeypatch.setitem(bench.BENCHES, "create", lambda: slow)
    assert bench.tell(["create"], only_json=False) == 1
    table, _, data = capsys.readouterr().out.partition("\n\n[")
    assert "2 m/s" in table
    assert "missed: speed" in table
    assert [one["holds"] for one in json.loads("[" + data)[0]["figures"]] == [False, True]
    assert bench.tell(["create"], only_json=True) == 1
    assert json.loads(capsys.readouterr().out)[0]["holds"] is False


def test_the_names_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        bench.main(["--help"])
    assert left.value.code == 0
    text = " ".join(capsys.readouterr().out.split())  # it is wrapped
    assert all(f"{name}: " in text for name in (*bench.BENCHES, "all"))


def test_percentiles_by_hand() -> None:
    hundred = [float(number) for number in range(1, 101)]
    assert [percentile(hundred, share) for share in (0.5, 0.99, 1.0)] == [50, 99, 100]
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2
    assert percentile([4.0], 0.99) == 4
