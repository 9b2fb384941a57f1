"""`berth host init`: sets this workstation up."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from app.cli.base import Failed, json_option, print_json
from app.drivers.system import System
from app.services import hostinit
from app.services.checkup import printable
from app.services.hostinit import Outcome, State, firewall
from app.services.hostinit.services import RULES
from app.services.hostinit.storage import WHICH

_SIGNS = {
    State.ALREADY: "ok  ", State.DONE: "done", State.PLANNED: "do  ", State.FAILED: "FAIL", State.LEFT: "left",
}  # fmt: skip
_KEPT = "; or none (default: as before)"


def _ports(_context: click.Context, _parameter: click.Parameter, text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    if not (first.isdigit() and last.isdigit()):
        raise click.BadParameter("write it like 22000-22999")
    return int(first), int(last)


@click.command()
@click.option("--name", default=os.uname().nodename.partition(".")[0].lower, help="What Berth calls the host.")
@click.option("--disk", default="", help="An empty disk for the machines: /dev/…")
@click.option("--loop", "loop_gib", type=click.IntRange(5, 100_000), default=None, metavar="GIB", help="Or a file.")
@click.option("--storage", type=click.Choice(WHICH), help="What it is made of (default: the best there is).")
@click.option("--erase", is_flag=True, help="Take the disk though there is something on it, which is lost for good.")
@click.option("--subnet", default="", help="The bridge's address with its mask, 10.77.0.1/24.")
@click.option("--allow", "opened", multiple=True, metavar="NETWORK", help=f"A private network they may reach{_KEPT}.")
@click.option("--deny", "closed", multiple=True, metavar="NETWORK", help=f"A public network they may not{_KEPT}.")
@click.option(
    "--rate", type=click.IntRange(0, 100_000), metavar="MBIT", help="Of each machine, per second; 0: no limit."
)
@click.option("--ports", default="22000-22999", callback=_ports, help="The host's ports for SSH and desktops.")
@click.option("--no-agent", is_flag=True, help="`berth up` on this machine runs the agent: make no service of it.")
@click.option("--yes", is_flag=True, help="Do it. Without, or with --dry-run, it only says what it would do.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@json_option
def init(ports: tuple[int, int], no_agent: bool, yes: bool, dry_run: bool, as_json: bool, **given: Any) -> int:
    """Set this workstation up: LXD with storage, a bridge whose machines are kept apart, ports, the agent.

    Says what it would do; --yes does it, as root. What is so already is left alone, so it can be run again. The agent
    needs DATABASE_URL and REDIS_AGENT_URL; they are taken from the environment once and kept in /etc/berth/agent.env.
    """
    really = yes and not dry_run
    if really and os.geteuid() != 0:
        raise Failed("Setting a workstation up takes root: sudo berth host init … --yes")
    given["loop_gib"], given["storage"] = given["loop_gib"] or 0, given["storage"] or ""
    berth, system = str(Path(sys.executable).with_name("berth")), System()
    kept = _as_before(system, given)
    if kept and not as_json:
        click.echo(f"As before: {printable(kept)}")
    try:
        wish = hostinit.Wish(berth=berth, first_port=ports[0], last_port=ports[1], **given)
    except hostinit.Trouble as trouble:
        raise Failed(f"{trouble.why}. {trouble.todo}") from trouble
    outcomes = []
    for one in hostinit.go(hostinit.steps(wish, agent=not no_agent), system, really=really):
        outcomes.append(one)
        if not as_json:
            _show(one)
    if as_json:
        print_json([_as_json(one) for one in outcomes])
    return _end(outcomes, system, berth, really=really, as_json=as_json)


def _as_before(system: System, given: dict[str, Any]) -> str:
    """Fill in what this call does not say of the firewall with what the last one said; that, as one would type it."""
    opened, closed, rate = firewall.chosen(system.read(RULES) or "")
    kept = []
    for name, option, before in (("opened", "--allow", opened), ("closed", "--deny", closed)):
        if not given[name]:
            given[name] = before
            kept += [f"{option} {network}" for network in before]
        elif given[name] == ("none",):
            given[name] = ()
    if given["rate"] is None:
        given["rate"] = rate
        kept += [f"--rate {rate}"] if rate else []
    return " ".join(kept)


def _as_json(one: Outcome) -> dict[str, Any]:
    return {"step": one.title, "state": one.state, "lines": one.lines, "notes": one.notes, "todo": one.todo}


def _show(one: Outcome) -> None:
    click.echo(f"{_SIGNS[one.state]} {one.title}: {one.state}")
    for line in (*one.lines, *one.notes, one.todo):
        if line:
            click.echo(f"     {printable(line)}")


def _end(outcomes: list[Outcome], system: System, berth: str, *, really: bool, as_json: bool) -> int:
    """What comes after the steps: `berth doctor`, or how to go on."""
    if any(one.state in {State.FAILED, State.LEFT} for one in outcomes):
        return 1
    if not really:
        if not as_json and any(one.state == State.PLANNED for one in outcomes):
            click.echo("Nothing was changed. To do it: the same command with --yes, as root.")
        return 0
    kept = hostinit.environment(system)
    if kept:
        kept |= {"BERTH_DATA": "/var/lib/berth", "REDIS_URL": kept.get("REDIS_AGENT_URL", "")}
    done = system.run([berth, "doctor"], 120, more=kept)
    if not as_json:
        click.echo(done.text or done.complaint)
    return done.status


COMMANDS = (init,)
