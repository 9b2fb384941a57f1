"""`berth plan`: what a host's page says, and what a pass would do about it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from app import clock
from app.cli.base import driver_of, json_option, print_json, print_table, with_app
from app.cli.gpus import row
from app.extensions import transaction
from app.models import GpuState, Host
from app.services import drift, enforcement, inventory
from app.services.plan import Plan
from app.services.plan import plan as planned


@click.command()
@click.argument("name", metavar="HOST")
@json_option
@with_app
def plan(name: str, as_json: bool) -> None:
    """What a pass over a host would do now, and what differs there. Changes nothing.

    The host is looked at now, but not its programs: those are as its agent saw them last.
    """
    with transaction():
        target = inventory.host(name)
        want = enforcement.desired(target)
        rows = [row(found, target) for found, _host in inventory.gpus(target.id)]
    seen = driver_of(target).observe()
    want = enforcement.marked(want, seen)
    observed = drift.news(target.observed, drift.report(want, seen, None)) or target.observed
    found = {
        "steps": _steps(planned(want, seen)),
        **{key: observed[key] for key in ("gpus", "drift", "intruders", "on_host", "doubts", "left_out")},
        "quarantine": [gpu for gpu in rows if gpu["state"] == GpuState.QUARANTINE],
        "last_pass": _last_pass(target),
    }
    if as_json:
        print_json(found)
    else:
        _tell(found)


def _steps(todo: Plan) -> list[dict[str, Any]]:
    return [
        *({"do": "detach", "gpu": item.pci_address, "instance": item.instance} for item in todo.detaches),
        *({"do": "attach", "gpu": item.want.gpu.pci_address, "instance": item.want.instance} for item in todo.attaches),
        *(
            {"do": "wait", "gpu": item.want.gpu.pci_address, "instance": item.want.instance or "", "why": item.trouble}
            for item in todo.waits
        ),
        *({"do": "leave alone", "gpu": item.pci_address, "instance": item.instance} for item in todo.foreign),
    ]


def _last_pass(host: Host) -> dict[str, Any]:
    return {
        "seconds_ago": _age(host.pass_at),
        "milliseconds": host.pass_ms,
        "trouble": host.trouble,
        "agent_seen_seconds_ago": _age(host.seen_at),
    }


def _age(moment: datetime | None) -> int | None:
    return None if moment is None else round((clock.now() - moment).total_seconds())


def _tell(found: dict[str, Any]) -> None:
    for step in found["steps"]:
        click.echo(" ".join(drift.shown(str(part)) for part in step.values() if part != ""))
    if not found["steps"]:
        click.echo("Nothing to do.")
    click.echo()
    print_table([_gpu(line) for line in found["gpus"]], "No GPUs.")
    click.echo()
    print_table([_difference(item) for item in found["drift"]], "No differences.")
    for entry in found["intruders"]:
        click.echo(f"without a booking: {_program(entry)} in {entry['instance']}")
    for entry in found["on_host"]:
        click.echo(f"on the host, left alone: {_program(entry)}")
    for gpu in found["quarantine"]:
        click.echo(f"in quarantine since {gpu['quarantined_at']}: {gpu['pci_address']} {drift.shown(gpu['reason'])}")
    last = found["last_pass"]
    took = f"last pass {last['seconds_ago']} s ago, took {last['milliseconds']} ms"
    click.echo(took if last["seconds_ago"] is not None else "no pass yet")
    if last["trouble"]:
        click.echo(f"trouble: {drift.shown(last['trouble'])}")


def _gpu(line: dict[str, Any]) -> dict[str, Any]:
    want = line["want"]
    return {
        "gpu": line["pci"],
        "state": line["code"],
        "should_have_it": f"{want['instance'] or '?'} (booking {want['booking']})" if want else None,
        "seen_in": sorted({*line["seen"], *line["held_by"]}),
    }


def _difference(item: dict[str, Any]) -> dict[str, Any]:
    return {
        "difference": item["kind"],
        "instance": item["instance"] or None,
        "device": item["device"] or item["pci"],
        "why": item["reason"],
        "berth": "puts it right" if item["ours"] else "leaves it alone",
    }


def _program(entry: dict[str, Any]) -> str:
    return f"{entry['name']} ({entry['pid']}) has {', '.join(entry['gpus'])}"


COMMANDS = (plan,)
