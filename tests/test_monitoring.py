"""Alerts and dashboard: Prometheus reads them, they name what is exported, and the alerts that matter are raised."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from flask import Flask

from app import clock
from app.cli.metrics import FILES
from app.extensions import db
from app.models import Allocation, Operation
from app.services import metrics as gauges
from app.services import samples
from app.services.samples import Now
from tests import promtool
from tests.factories import gpus_of, make_booking, make_host, make_instance, make_user
from tests.require import need
from workers import metrics as counted

RULES, DASHBOARD = FILES / "alerts.yml", FILES / "dashboard.json"


def alerts() -> dict[str, str]:
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"]: rule["expr"] for rule in group["rules"]}


def panels() -> Iterator[tuple[str, str]]:
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


@pytest.fixture
def exported(app: Flask) -> str:
    """What portal and agent say of a host that has everything: of the portal's two lines more, see test_health."""
    now, hour = clock.now(), timedelta(hours=1)
    pools = [
        {"name": "pool", "driver": "zfs", "used": 3, "total": 4},
        {"name": "isos", "driver": "dir", "used": 1, "total": 1},
    ]
    survey = {"pools": pools, "pool": "pool"}
    host = make_host("ws1", gpus=2, seen_at=now, pass_at=now, pass_ms=50, survey=survey)
    user = make_user("li")
    machine = make_instance(user, host)
    running = make_booking(user, gpus_of(host)[:1], now - hour, now + hour)
    over = make_booking(user, gpus_of(host)[1:], now - 3 * hour, now - 2 * hour)
    for booking in (running, over):
        changed = db.update(Allocation).where(Allocation.booking_id == booking.id)
        db.session.execute(changed.values(attached_at=booking.starts_at))
    db.session.add(Operation(kind="stop", host_id=host.id, instance_id=machine.id))
    values = dict.fromkeys(gauges.MEASURED, 50) | {"throttle": "power, heat"}
    samples.show(host.name, [Now(gpu.pci_address, now, values) for gpu in gpus_of(host)])
    db.session.flush()
    lines = "# HELP {0} x\n# TYPE {0} gauge\n{0} 1\n"
    own = "".join(lines.format(name) for name in ("berth_database_up", "berth_queue_up"))
    return gauges.text(gauges.families(names=True)) + own + counted.text()


def test_every_metric_that_they_name_is_exported(exported: str) -> None:
    there = set(re.findall(r"^(berth_\w+)", exported, re.MULTILINE))
    named = [*alerts().items(), *panels()]
    assert len(named) > 30
    for where, expression in named:
        wanted = set(re.findall(r"berth_\w+", expression))
        assert wanted, where
        assert wanted <= there, f"{where} wants {wanted - there}"


def test_the_dashboard_has_every_host_also_one_that_nobody_counts_on(app: Flask) -> None:
    make_host("ws1", gpus=1)
    make_host("ws2", gpus=1, enabled=False)
    (choice,) = [one for one in json.loads(DASHBOARD.read_text())["templating"]["list"] if one["name"] == "host"]
    (name,) = re.findall(r"label_values\((\w+), host\)", choice["query"]["query"])
    said = gauges.text(gauges.families(names=False))
    assert re.findall(rf'^{name}{{host="(\w+)"}}', said, re.MULTILINE) == ["ws1", "ws2"]


def test_what_keeps_a_gpu_from_its_clocks_is_told(exported: str) -> None:
    said = dict(re.findall(r'^berth_gpu_throttled{.*gpu="0".*reason="(\w+)".*} (\S+)', exported, re.MULTILINE))
    assert said == {"power": "1.0", "heat": "1.0", "hardware": "0.0"}


def test_how_full_the_pools_of_machines_are(exported: str) -> None:
    assert re.findall(r"^berth_storage_pool.*", exported, re.MULTILINE) == [
        'berth_storage_pool_used_ratio{host="ws1",pool="pool"} 0.75'
    ]


def test_prometheus_reads_it_all(exported: str, tmp_path: Path) -> None:
    need("promtool", promtool.path(), "there is no promtool, and Debian's package cannot be had")
    assert f"{len(alerts())} rules found" in promtool.run("check", "rules", "--lint-fatal", RULES)
    promtool.run("check", "metrics", said=exported)
    drawn = [{"record": f"panel:{number}", "expr": _filled_in(text)} for number, (_, text) in enumerate(panels())]
    written = tmp_path / "panels.yml"
    written.write_text(json.dumps({"groups": [{"name": "panels", "rules": drawn}]}))
    assert f"{len(drawn)} rules found" in promtool.run("check", "rules", written)


def test_the_alerts_are_raised(tmp_path: Path) -> None:
    """Some minutes of a lab in which all that can be wrong is: and of one in which nothing is."""
    need("promtool", promtool.path(), "there is no promtool, and Debian's package cannot be had")
    at = {"host": "lab01", "gpu": "3"}
    cases = {
        "BerthAgentSilent": ('berth_agent_seen_seconds{host="lab01"}', "300", "5", {"host": "lab01"}),
        "BerthGpuOverdue": ('berth_gpus_overdue_seconds{host="lab01"}', "61", "3", {"host": "lab01"}),
        "BerthGpuQuarantined": ('berth_gpus{host="lab01",state="quarantine"}', "1", "0", {"host": "lab01"}),
        "BerthGpuUsedWithoutBooking": ('berth_gpu_unbooked_processes{host="lab01",gpu="3"}', "2", "0", at),
        "BerthGpuNotRead": ('berth_gpu_seen_seconds{host="lab01",gpu="3"}', "400", "4", at),
        "BerthGpuUnreadable": ('berth_gpu_unreadable{host="lab01",gpu="3"}', "1", "0", at),
        "BerthDatabaseAway": ("berth_database_up", "0", "1", {}),
    }
    tests: list[dict[str, Any]] = []
    for name, (series, bad, good, labels) in cases.items():
        for value, raised in ((bad, [labels]), (good, [])):
            found = [{"exp_labels": {**one, **_severity(name)}, "exp_annotations": None} for one in raised]
            tests.append(
                {
                    "interval": "15s",
                    "input_series": [{"series": series, "values": f"{value}x40"}],
                    "alert_rule_test": [{"eval_time": "6m", "alertname": name, "exp_alerts": found}],
                }
            )
    for one in tests:
        for found in one["alert_rule_test"][0]["exp_alerts"]:
            name = one["alert_rule_test"][0]["alertname"]
            found["exp_annotations"] = {"summary": _summary(name, cases[name][1], found["exp_labels"])}
    written = tmp_path / "cases.yml"
    written.write_text(json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "15s", "tests": tests}))
    assert "SUCCESS" in promtool.run("test", "rules", written)


def _rule(name: str) -> dict[str, Any]:
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    return next(rule for rule in group["rules"] if rule["alert"] == name)


def _severity(name: str) -> dict[str, str]:
    return {"severity": _rule(name)["labels"]["severity"]}


def _summary(name: str, value: str, labels: dict[str, str]) -> str:
    seconds = int(value)
    length = f"{seconds // 60}m {seconds % 60}s"
    text = _rule(name)["annotations"]["summary"].replace("{{ $value | humanizeDuration }}", length)
    text = text.replace("{{ $value }}", value)
    return re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda found: labels[found[1]], text)


def _filled_in(expression: str) -> str:
    return expression.replace("$host", ".*")
