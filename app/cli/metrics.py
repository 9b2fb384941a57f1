"""`berth metrics …`: what Prometheus and Grafana need to know of Berth, as files that come with it."""

from __future__ import annotations

from pathlib import Path

import click

FILES = Path(__file__).resolve().parent.parent / "monitoring"


@click.group()
def metrics() -> None:
    """Alerts for Prometheus and a dashboard for Grafana."""


@metrics.command()
def alerts() -> None:
    """Print the rules that Prometheus raises alerts by: one of its rule_files."""
    click.echo((FILES / "alerts.yml").read_text(), nl=False)


@metrics.command()
def dashboard() -> None:
    """Print the dashboard, to be imported into Grafana."""
    click.echo((FILES / "dashboard.json").read_text(), nl=False)


COMMANDS = (metrics,)
